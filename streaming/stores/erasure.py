"""Erasure requests, and the rows of the offline log that they cover.

A request covers the user's rows that contain an event appended up to its own append time, whichever was read first. All
requests are joined with the rows as Arrow arrays: a Python object for each would take gigabytes for a million requests.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MAX_REQUESTS: Final = 1_000_000  # in one run; the files beyond wait for the next


def read_requests(files: Iterable[Path]) -> tuple[pa.Table, list[Path]]:
    """The newest request of each user (user_id, appended), and the files that were read."""
    tables: list[pa.Table] = []
    read: list[Path] = []
    for path in files:
        table = pq.ParquetFile(path).read(columns=["user_id", "appended"]).replace_schema_metadata()
        if tables and sum(len(one) for one in tables) + len(table) > MAX_REQUESTS:
            break
        tables.append(table)
        read.append(path)
    if not tables:
        return pa.table({"user_id": pa.array([], pa.string()), "appended": pa.array([], pa.timestamp("us", "UTC"))}), []
    newest = pa.concat_tables(tables).group_by("user_id").aggregate([("appended", "max")])
    return newest.rename_columns({"user_id": "user_id", "appended_max": "appended"}), read


def drop_erased(rows: pa.Table, requests: pa.Table) -> pa.Table:
    """The rows that no request covers; the same object if no row is covered."""
    if not len(requests) or "user_id" not in rows.column_names or "created" not in rows.column_names:
        return rows
    at = pc.index_in(rows["user_id"], value_set=requests["user_id"].combine_chunks())
    oldest = rows["created"]  # rows of earlier releases have only the append time of their own event
    if "oldest_created" in rows.column_names:
        oldest = pc.coalesce(rows["oldest_created"], oldest)
    erased = pc.fill_null(pc.less_equal(oldest, requests["appended"].take(at)), False)
    return rows.filter(pc.invert(erased)) if pc.any(erased).as_py() else rows


def contains_user(file: Path, requests: pa.Table) -> bool:
    """Whether a Parquet file has a row of one of these users. Reads only row groups whose range of ids has one."""
    parquet = pq.ParquetFile(file)
    if not len(requests) or "user_id" not in parquet.schema_arrow.names:
        return False
    column, users = parquet.schema_arrow.names.index("user_id"), requests["user_id"]
    for group in range(parquet.num_row_groups):
        found = parquet.metadata.row_group(group).column(column).statistics
        in_range = users
        if found is not None and found.has_min_max:
            in_range = users.filter(pc.and_(pc.greater_equal(users, found.min), pc.less_equal(users, found.max)))
        if len(in_range):
            ids = parquet.read_row_group(group, columns=["user_id"])["user_id"]
            if pc.any(pc.is_in(ids, value_set=in_range.combine_chunks())).as_py():
                return True
    return False
