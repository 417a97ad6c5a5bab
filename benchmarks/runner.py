"""Times rivals in turn within one run and keeps what it saw: one table on the screen, one CSV in the repository.

A time means little on a shared machine, a ratio within the same minute means more. So each round runs
every variant once, the ratio is the median over rounds of variant over reference *in the same round*,
and each row carries the 20th and 80th percentile, the device, the versions and the date.

    rows = compare("p128", in_turn({"ours": ours, "rival": rival}), reference="ours")
    rows += compare("p128", in_turn(...), reference="ours", unit="positions/s", work=2048)
    publish("loss", rows)
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

import numpy as np
import torch

from infra.experiments.machine import device

RESULTS = Path(__file__).parent / "results.csv"
VERSIONS = ("torch", "triton", "numpy")


@dataclass(frozen=True)
class Row:
    """One variant of one case: the median of its rounds, and how many times the reference's value it is."""

    case: str
    variant: str
    median: float
    p20: float
    p80: float
    unit: str
    ratio: float


def in_turn(
    variants: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    budget: float = 120.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each round, by variant, after one round to warm up. Past `budget` seconds it ends after 3 rounds.

    With `time.process_time` for a clock, work of one thread is timed even where neighbours take the cores.
    """
    for work in variants.values():
        work()
    begin = time.perf_counter()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - begin > budget:
            break
        for name, work in variants.items():
            seconds[name].append(_seconds(work, clock))
    return seconds


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """The time of one call; a GPU is waited for, or only its queueing would be timed."""
    _wait()
    begin = clock()
    work()
    _wait()
    return clock() - begin


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def compare(
    case: str, seconds: Mapping[str, list[float]], reference: str, unit: str = "ms", work: float | None = None
) -> list[Row]:
    """Rows in milliseconds, or, where `work` says how much one call does, in work per second."""
    values = {name: [work / s if work else 1e3 * s for s in found] for name, found in seconds.items()}
    return [
        row(case, name, found, unit, median(a / b for a, b in zip(found, values[reference], strict=True)))
        for name, found in values.items()
    ]


def row(case: str, variant: str, values: list[float], unit: str, ratio: float = 1.0) -> Row:
    """A row of any measured values."""
    p20, middle, p80 = np.percentile(values, [20, 50, 80]).tolist()
    return Row(case, variant, middle, p20, p80, unit, ratio)


def compare_memory(case: str, variants: Mapping[str, Callable[[], object]], reference: str) -> list[Row]:
    """What one call of each variant needs at most beyond what was there before it, in MB."""
    peak = {name: extra_memory(work) for name, work in variants.items()}
    return [row(case, name, [found], "MB", found / max(peak[reference], 1e-9)) for name, found in peak.items()]


def extra_memory(work: Callable[[], object]) -> float:
    """The peak of one call beyond its start, in MB: of the process (Linux), or of the GPU where there is one.

    Freed memory that the allocator kept is given back first, or the call would use it unseen.
    """
    work()  # libraries take their own memory at the first call
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from the present size
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1e6


def _status(field: str) -> int:
    """A field of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def publish(benchmark: str, rows: Iterable[Row], results: Path = RESULTS) -> None:
    """Print the rows and append them to the CSV."""
    rows = list(rows)
    print(f"{benchmark} on {device()}")
    for one in rows:
        spread = f"{one.median:12.4g} {one.unit:<12} [{one.p20:.4g}, {one.p80:.4g}]"
        print(f"  {one.case:<28} {one.variant:<36} {spread:<52} {one.ratio:8.2f} x")
    packages = [package for package in VERSIONS if find_spec(package)]  # Triton is for Linux only
    head = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device(),
        "versions": " ".join([f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)]),
        "benchmark": benchmark,
    }
    _append(results, [head | asdict(one) for one in rows])


def _append(results: Path, lines: list[dict[str, object]]) -> None:
    """Rows below what is there; the names of the columns once."""
    new = not results.exists()
    with results.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]))
        if new:
            writer.writeheader()
        writer.writerows(
            {name: f"{v:.5g}" if isinstance(v, float) else v for name, v in line.items()} for line in lines
        )
