"""Describe the machine of a measurement."""

import os
import platform
from pathlib import Path

import torch

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20


def device() -> str:
    """Name of the GPU, or of the processor with the number of threads that torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].split(":")[1].strip() if models else platform.machine()
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def resident_mib(process: int | str = "self") -> float:
    """Resident memory of a process in MiB, by default of this process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_BYTES / _MIB
