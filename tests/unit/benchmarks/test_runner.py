"""The arithmetic of the benchmark runner, on given times."""

import csv
from pathlib import Path

import pytest
import torch

from benchmarks.runner import Row, compare_memory, compare_times, peak_extra_mb, save_results, time_variants


def test_variants_are_timed_in_turn() -> None:
    order: list[str] = []
    ticks = iter(range(100))
    seconds = time_variants(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, clock=lambda: float(next(ticks))
    )
    assert order == ["a", "b"] * 3  # the first round is the warm-up
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_ratio_is_taken_within_each_round() -> None:
    seconds = {"ours": [0.001, 0.010, 0.002], "rival": [0.003, 0.030, 0.005]}  # the second round was disturbed
    ours, rival = compare_times("case", seconds, "ours")
    assert [ours.p20, ours.median, ours.p80, ours.ratio] == pytest.approx([1.4, 2.0, 6.8, 1.0])
    assert [rival.median, rival.ratio] == pytest.approx([5.0, 3.0])
    assert ours.unit == rival.unit == "ms"


def test_shorter_time_gives_higher_throughput() -> None:
    _, rival = compare_times("case", {"ours": [0.5], "rival": [2.0]}, "ours", unit="positions/s", work_per_call=100)
    assert (rival.median, rival.ratio, rival.unit) == (50.0, 0.25, "positions/s")


def test_peak_memory_counts_temporary_allocations() -> None:
    assert 60 < peak_extra_mb(lambda: torch.ones(16_000_000)) < 80
    variants = {"small": lambda: torch.ones(8_000_000), "large": lambda: torch.ones(32_000_000)}
    small, large = compare_memory("case", variants, "small")
    assert small.unit == large.unit == "MB"
    assert large.ratio == pytest.approx(4, abs=0.8)


def test_rows_are_appended_below_one_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.csv"
    for value in (1.0, 2.0):
        save_results("loss", [Row("case", "ours", value, value, value, "ms", 1.0)], file)
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(r["benchmark"], r["case"], r["variant"], float(r["median"])) for r in rows] == [
        ("loss", "case", "ours", 1.0),
        ("loss", "case", "ours", 2.0),
    ]
    assert all(r["date"] and r["device"] and "torch" in r["versions"] for r in rows)
    assert "ours" in capsys.readouterr().out
