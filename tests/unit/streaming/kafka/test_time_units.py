"""Event times in a wrong unit are counted, reported, and refused if most events of a partition have them."""

import pytest
from prometheus_client import REGISTRY

from streaming.kafka.time_units import TimeUnits

SECONDS, MILLISECONDS = 1_796_020_258, 1_796_020_258_000


def old_events() -> float:
    return REGISTRY.get_sample_value("premiere_old_events_total") or 0.0


def test_times_in_seconds_are_refused_once_they_are_the_majority() -> None:
    units, before = TimeUnits(), old_events()
    reasons = [units.problem(0, SECONDS) for _ in range(60)]
    assert reasons[:50] == [None] * 50
    assert reasons[50] == "unit: 1796020258 ms is before 1980: it looks like seconds; multiply by 1000"
    assert old_events() == before + 60
    assert units.problem(1, SECONDS) is None  # partitions are independent


def test_some_old_events_among_others_are_accepted() -> None:
    units = TimeUnits()
    assert {units.problem(0, -5_000_000 if n % 3 == 0 else MILLISECONDS) for n in range(500)} == {None}


def test_partition_recovers_after_the_producer_is_corrected() -> None:
    units = TimeUnits()
    for _ in range(200):
        units.problem(0, SECONDS)
    assert {units.problem(0, MILLISECONDS) for _ in range(60)} == {None}
    assert units.problem(0, SECONDS) is None


def test_one_warning_per_minute(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 1.0, 59.0, 60.0))
    units = TimeUnits(clock=lambda: next(times))
    for _ in range(4):
        units.problem(3, SECONDS)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "An event in partition 3 has an old time"
    ] * 2
