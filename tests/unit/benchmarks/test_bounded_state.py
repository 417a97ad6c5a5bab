"""The bounded tables are measured full and with room."""

from collections.abc import Callable

import pytest

from benchmarks.bounded_state import TABLES, AddEntry, measure


@pytest.mark.parametrize("make", TABLES)
def test_each_table_is_measured_with_room_and_full(make: Callable[[int], AddEntry]) -> None:
    rows = measure(make, entries=40, rounds=3)
    assert [row.variant for row in rows] == ["with room", "full"]
    assert all(row.median > 0 and row.unit == "entries/CPU s" for row in rows)
