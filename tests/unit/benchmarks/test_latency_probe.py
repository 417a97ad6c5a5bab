"""The helpers of the end-to-end benchmarks: pacing, slicing and percentiles."""

import time
from itertools import islice

import pandas as pd
import pytest

from benchmarks.latency_probe import last_events, paced_events, percentiles
from infra.data.datasets import DataError, Dataset, from_tables
from infra.data.tables import Table


def six_events() -> Dataset:
    events = pd.DataFrame([("u", f"t{n}", n) for n in range(6)], columns=["user", "item", "ts"])
    return from_tables(Table("events", events), None, name="six")


def test_last_events_are_produced_in_order() -> None:
    assert [event.title for event in paced_events(last_events(six_events(), 4), 1, 1e9)] == ["t3", "t4", "t5"]


def test_too_few_events_are_refused() -> None:
    with pytest.raises(DataError, match="6 events, not 7"):
        last_events(six_events(), 7)


def test_events_wait_until_they_are_due() -> None:
    began = time.monotonic()
    assert len(list(islice(paced_events(six_events(), 0, rate=20), 3))) == 3
    assert time.monotonic() - began >= 2 / 20  # the first is due at once


def test_percentiles_of_a_hundred_values() -> None:
    assert percentiles([float(n) for n in range(100, 0, -1)]) == {50: 51.0, 95: 96.0, 99: 100.0}
    assert [value != value for value in percentiles([]).values()] == [True] * 3  # NaN
