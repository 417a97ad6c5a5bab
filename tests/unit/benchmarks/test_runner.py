"""The runner's own arithmetic, on times that are given."""

import csv
from pathlib import Path

import pytest
import torch

from benchmarks.runner import Row, compare, compare_memory, extra_memory, in_turn, publish


def test_variants_take_turns_and_a_given_clock_times_each() -> None:
    order: list[str] = []
    ticks = iter(range(100))
    seconds = in_turn(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, clock=lambda: float(next(ticks))
    )
    assert order == ["a", "b"] * 3  # the first pair warms up
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_a_ratio_is_taken_within_each_round() -> None:
    seconds = {"ours": [0.001, 0.010, 0.002], "rival": [0.003, 0.030, 0.005]}  # the second round was disturbed
    ours, rival = compare("case", seconds, "ours")
    assert [ours.p20, ours.median, ours.p80, ours.ratio] == pytest.approx([1.4, 2.0, 6.8, 1.0])
    assert [rival.median, rival.ratio] == pytest.approx([5.0, 3.0])
    assert ours.unit == rival.unit == "ms"


def test_work_per_second_is_larger_where_the_time_is_shorter() -> None:
    _, rival = compare("case", {"ours": [0.5], "rival": [2.0]}, "ours", unit="positions/s", work=100)
    assert (rival.median, rival.ratio, rival.unit) == (50.0, 0.25, "positions/s")


def test_extra_memory_sees_what_a_call_allocates_and_gives_back() -> None:
    assert 60 < extra_memory(lambda: torch.ones(16_000_000)) < 80
    small, large = compare_memory("case", {"small": lambda: torch.ones(8_000_000), "large": big}, "small")
    assert small.unit == large.unit == "MB"
    assert large.ratio == pytest.approx(4, abs=0.8)


def big() -> torch.Tensor:
    return torch.ones(32_000_000)


def test_rows_are_appended_below_one_line_of_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.csv"
    for value in (1.0, 2.0):
        publish("loss", [Row("case", "ours", value, value, value, "ms", 1.0)], file)
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(r["benchmark"], r["case"], r["variant"], float(r["median"])) for r in rows] == [
        ("loss", "case", "ours", 1.0),
        ("loss", "case", "ours", 2.0),
    ]
    assert all(r["date"] and r["device"] and "torch" in r["versions"] for r in rows)
    assert "ours" in capsys.readouterr().out
