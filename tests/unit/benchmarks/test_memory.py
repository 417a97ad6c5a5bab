"""The rows of the memory benchmark, on given samples."""

import pandas as pd
import pytest

from benchmarks.memory import MemorySample, memory_rows, resident_after
from infra.data.datasets import from_tables
from infra.data.tables import Table

SAMPLES = [MemorySample(0, 110.0), MemorySample(3, 130.0), MemorySample(5, 140.0), MemorySample(8, 147.0)]


def test_memory_is_read_at_the_next_sample() -> None:
    assert [resident_after(SAMPLES, events) for events in (0, 3, 4, 8, 99)] == [110, 130, 140, 147, 147]


def test_memory_per_user_counts_the_first_pass() -> None:
    events = [("u", "a", 1), ("u", "b", 2), ("v", "a", 3), ("v", "b", 4)]
    data = from_tables(Table("events", pd.DataFrame(events, columns=["user", "item", "ts"])), None, name="four")
    found = {row.variant: row for row in memory_rows(data, 100.0, SAMPLES, seconds=2.0)}
    assert found["per user"].median == pytest.approx((140 - 100) * 1024 / 2)
    assert found["after the second pass"].ratio == pytest.approx(147 / 140)
    assert (found["throughput"].median, found["throughput"].unit) == (4, "events/s")
