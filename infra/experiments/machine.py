"""The machine that a measurement was made on."""

import os
import platform
from pathlib import Path

import torch

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20


def device() -> str:
    """The GPU, or the processor and the number of its threads that torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].split(":")[1].strip() if models else platform.machine()
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def resident_mib(process: int | str = "self") -> float:
    """Resident memory of a process in MiB; without an argument, of this one."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_BYTES / _MIB
