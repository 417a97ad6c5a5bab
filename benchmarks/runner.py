"""Times variants within one run, prints a table and appends the rows to `benchmarks/results.csv`.

A time on a shared machine means little; a ratio within the same minute means more. So each round calls every variant
once, and the ratio is the median over the rounds of variant / reference in the same round. Each row carries the 20th
and 80th percentile, the device, the versions and the date.

    rows = compare_times("p128", time_variants({"ours": ours, "rival": rival}), reference="ours")
    rows += compare_times("p128", time_variants(...), reference="ours", unit="positions/s", work_per_call=2048)
    save_results("loss", rows)
"""

import csv
import ctypes
import gc
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import torch

from infra.experiments.machine import device

RESULTS_CSV: Final = Path(__file__).parent / "results.csv"
VERSIONED_PACKAGES: Final = ("torch", "triton", "numpy")
MIN_ROUNDS: Final = 3  # also when the time budget is exceeded

Work = Callable[[], object]  # one call of a variant


@dataclass(frozen=True)
class Row:
    """A measured value of one variant in one case, over the rounds."""

    case: str
    variant: str
    median: float
    p20: float
    p80: float
    unit: str
    ratio: float  # variant / reference


def time_variants(
    variants: Mapping[str, Work],
    rounds: int = 15,
    budget_s: float = 120.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each round by variant, after one warm-up round. Stops early after `budget_s`, but not before round 3.

    Pass `time.process_time` as the clock for work on one thread: other processes then do not affect the times.
    """
    for work in variants.values():
        work()
    began = time.perf_counter()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for done in range(rounds):
        if done >= MIN_ROUNDS and time.perf_counter() - began > budget_s:
            break
        for name, work in variants.items():
            seconds[name].append(_time_call(work, clock))
    return seconds


def _time_call(work: Work, clock: Callable[[], float]) -> float:
    """Seconds of one call. Synchronizes with the GPU, because otherwise only the enqueueing would be timed."""
    _synchronize()
    began = clock()
    work()
    _synchronize()
    return clock() - began


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare_times(
    case: str,
    seconds: Mapping[str, list[float]],
    reference: str,
    unit: str = "ms",
    work_per_call: float | None = None,
) -> list[Row]:
    """Rows in milliseconds, or as a rate in `unit` if `work_per_call` is given."""
    values = {name: [work_per_call / s if work_per_call else 1e3 * s for s in times] for name, times in seconds.items()}
    return [
        make_row(case, name, measured, unit, median(a / b for a, b in zip(measured, values[reference], strict=True)))
        for name, measured in values.items()
    ]


def make_row(case: str, variant: str, values: list[float], unit: str, ratio: float = 1.0) -> Row:
    """A row from measured values."""
    p20, p50, p80 = np.percentile(values, [20, 50, 80]).tolist()
    return Row(case, variant, p50, p20, p80, unit, ratio)


def compare_memory(case: str, variants: Mapping[str, Work], reference: str) -> list[Row]:
    """Peak memory of one call of each variant above the memory before the call, in MB."""
    peak = {name: peak_extra_mb(work) for name, work in variants.items()}
    return [make_row(case, name, [mb], "MB", mb / max(peak[reference], 1e-9)) for name, mb in peak.items()]


def peak_extra_mb(work: Work) -> float:
    """Peak memory of one call above the memory before it, in MB: of the GPU if there is one, else of the process.

    Linux only. Memory that the allocator cached is returned first; otherwise the call would reuse it uncounted.
    """
    work()  # libraries allocate their own memory at the first call
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak_resident()
    before = _process_status_bytes("VmRSS")
    work()
    return (_process_status_bytes("VmHWM") - before) / 1e6


def reset_peak_resident() -> None:
    """Set the peak resident memory of this process to its present one. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_resident_mib() -> float:
    """Peak resident memory of this process in MiB, since its start or the last reset."""
    return _process_status_bytes("VmHWM") / 2**20


def _process_status_bytes(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def save_results(benchmark: str, rows: Iterable[Row], path: Path = RESULTS_CSV) -> None:
    """Print the rows and append them to the CSV file."""
    rows = list(rows)
    print(f"{benchmark} on {device()}")
    for row in rows:
        spread = f"{row.median:12.4g} {row.unit:<12} [{row.p20:.4g}, {row.p80:.4g}]"
        print(f"  {row.case:<28} {row.variant:<36} {spread:<52} {row.ratio:8.2f} x")
    head = {**environment(), "benchmark": benchmark}
    _append_csv(path, [head | asdict(row) for row in rows])


def environment() -> dict[str, str]:
    """Date, device and versions of a measurement."""
    packages = [package for package in VERSIONED_PACKAGES if find_spec(package)]  # Triton exists only for Linux
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device(),
        "versions": " ".join([f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)]),
    }


def _append_csv(path: Path, lines: list[dict[str, object]]) -> None:
    """Append lines; write the header only to a new file."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        if is_new:
            writer.writeheader()
        writer.writerows(
            {name: f"{v:.5g}" if isinstance(v, float) else v for name, v in line.items()} for line in lines
        )
