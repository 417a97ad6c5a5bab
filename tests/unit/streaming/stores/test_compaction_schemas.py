"""Compaction of files that versions with different columns have written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.offline_log import TIME, Epochs, run, stream


def test_files_with_and_without_a_new_column_are_merged(tmp_path: Path) -> None:
    root = tmp_path / "user_activity"
    Epochs(tmp_path).write(*stream((2, 2, 0)))
    old, new = (pq.read_table(path) for path in sorted(root.glob("p*.parquet"))[:2])
    column = pa.array(new["created"].to_pylist(), TIME)
    pq.write_table(new.append_column("oldest_created", column), sorted(root.glob("p*.parquet"))[1])
    run(tmp_path)
    (day,) = root.glob("day-*.parquet")
    merged = pq.read_table(day)
    assert sorted(merged["oldest_created"].to_pylist(), key=str) == [*new["created"].to_pylist(), *[None] * len(old)]
