"""Erasure requests: the rows that they cover, and the record of files that were checked."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from streaming.stores.erasure import ErasureProgress, ErasureRequest, drop_erased

NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)
REQUESTS = {"u": [ErasureRequest(partition=1, offset=10, appended=NOON)]}


def table(*rows: tuple[str, int, int, datetime]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(("user_id", "partition", "offset", "created"), row, strict=True)) for row in rows]
    )


def test_rows_up_to_the_request_and_older_logs_are_dropped() -> None:
    later, earlier = NOON + timedelta(minutes=1), NOON - timedelta(days=1)
    kept = [("u", 1, 11, later), ("u", 2, 3, later), ("other", 1, 3, earlier)]
    erased = [("u", 1, 10, NOON), ("u", 1, 9, later), ("u", 2, 99, earlier)]
    assert drop_erased(table(*kept, *erased), REQUESTS).equals(table(*kept))


def test_table_without_covered_rows_is_returned_unchanged() -> None:
    rows = table(("other", 1, 3, NOON))
    assert drop_erased(rows, REQUESTS) is rows
    assert drop_erased(rows, {}) is rows


def test_checked_file_is_checked_only_for_new_requests(tmp_path: Path) -> None:
    file = tmp_path / "data.parquet"
    file.write_bytes(b"rows")
    progress = ErasureProgress(tmp_path / "progress.json")
    assert progress.unchecked(file, REQUESTS) == REQUESTS
    progress.save(REQUESTS)
    new = {"v": [ErasureRequest(0, 5, NOON)]}
    again = ErasureProgress(tmp_path / "progress.json")
    assert again.unchecked(file, REQUESTS | new) == new
    file.write_bytes(b"other rows")  # the same name with other content
    assert again.unchecked(file, REQUESTS) == REQUESTS
