"""Erasure requests: the rows that they cover, joined as Arrow arrays."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streaming.stores.erasure import contains_user, drop_erased, read_requests

NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")
MANY: int = 300_000


def table(*rows: tuple[str, datetime]) -> pa.Table:
    users, times = zip(*rows, strict=True) if rows else ((), ())
    return pa.table({"user_id": pa.array(users, pa.string()), "created": pa.array(times, TIME)})


def requests(folder: Path, *rows: tuple[str, datetime]) -> pa.Table:
    """These requests, written to one file each and read."""
    for number, one in enumerate(rows):
        pq.write_table(table(one).rename_columns(["user_id", "appended"]), folder / f"p{number:03d}.parquet")
    return read_requests(sorted(folder.glob("p*.parquet")))[0]


def test_rows_appended_up_to_the_newest_request_of_their_user_are_dropped(tmp_path: Path) -> None:
    later, earlier = NOON + timedelta(milliseconds=1), NOON - timedelta(days=1)
    kept, erased = [("u", later), ("other", earlier)], [("u", NOON), ("u", earlier)]
    newest = requests(tmp_path, ("u", earlier), ("u", NOON), ("nobody", later))
    assert drop_erased(table(*kept, *erased), newest).equals(table(*kept))


def test_later_row_with_an_erased_event_in_its_history_is_dropped(tmp_path: Path) -> None:
    later, earlier = NOON + timedelta(milliseconds=1), NOON - timedelta(days=1)
    both = table(("u", later), ("u", later), ("u", later), ("u", earlier))
    rows = both.append_column("oldest_created", pa.array([NOON, later, None, None], TIME))
    assert drop_erased(rows, requests(tmp_path, ("u", NOON))).equals(rows.slice(1, 2))


def test_table_without_covered_rows_is_returned_unchanged(tmp_path: Path) -> None:
    rows = table(("other", NOON))
    assert drop_erased(rows, requests(tmp_path, ("u", NOON))) is rows
    none, read = read_requests([])
    assert drop_erased(rows, none) is rows
    assert read == []


@pytest.mark.parametrize("user", ["a", "mm", "z", "é"])
def test_file_with_a_row_of_the_user_is_found(tmp_path: Path, user: str) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(table(*((name, NOON) for name in ("a", "b", "m", "mm", "z", "é"))), path, row_group_size=2)
    (tmp_path / "requests").mkdir()
    assert contains_user(path, requests(tmp_path / "requests", (user, NOON)))


@pytest.mark.parametrize("user", ["", "aa", "n", "zz"])
def test_file_without_a_row_of_the_user_is_not_found(tmp_path: Path, user: str) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(table(*((name, NOON) for name in ("a", "b", "m", "mm", "z"))), path, row_group_size=2)
    (tmp_path / "requests").mkdir()
    assert not contains_user(path, requests(tmp_path / "requests", (user, NOON)))


def test_many_requests_take_no_python_object_each(tmp_path: Path) -> None:
    users = pa.array([f"user-{n:032d}" for n in range(MANY)])
    pq.write_table(pa.table({"user_id": users, "appended": pa.array([NOON] * MANY, TIME)}), tmp_path / "p0.parquet")
    rows = table(*((f"user-{n:032d}", NOON) for n in range(0, 2 * MANY, 1000)))
    tracemalloc.start()
    try:
        newest, _ = read_requests([tmp_path / "p0.parquet"])
        left = drop_erased(rows, newest)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(newest), len(left)) == (MANY, MANY // 1000)
    assert peak < 5 * MANY  # bytes of Python objects; Arrow's memory is not traced
