"""Marks of those who asked to be forgotten, and what they cover in the offline log.

A mark says where the request lies. A row goes that lies at or before it in its partition; and one that was written
earlier, wherever it lies, for it may be of an older log. What was looked through for which marks is noted, without
names, so that no run of the compaction does it again.
"""

import json
import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

SKEW: Final = timedelta(hours=1)  # by which record times of one log may be out of order

Marks = dict[str, list[tuple[int, int, datetime]]]  # user -> partition, offset and record time of each request


def read_marks(root: Path) -> Marks:
    """The requests to forget that are kept."""
    marks: Marks = {}
    for path in sorted(root.glob("*.parquet")):
        for row in pq.ParquetFile(path).read().to_pylist():
            marks.setdefault(row["user_id"], []).append((row["partition"], row["offset"], row["appended"]))
    return marks


def without(rows: pa.Table, marks: Marks) -> pa.Table:
    """The rows less those that a mark covers; the same object where it covers none."""
    if not marks or "user_id" not in rows.column_names or "created" not in rows.column_names:
        return rows
    known = pc.is_in(rows["user_id"], value_set=pa.array(list(marks), pa.string())).to_numpy(zero_copy_only=False)
    places: NDArray[np.int64] = np.flatnonzero(known)
    if not len(places):
        return rows
    columns = rows.select(["user_id", "partition", "offset", "created"]).take(places).to_pylist()
    gone = places[[_covered(row, marks[row["user_id"]]) for row in columns]]
    if not len(gone):
        return rows
    keep = np.ones(len(rows), bool)
    keep[gone] = False
    return rows.filter(pa.array(keep))


def _covered(row: dict[str, Any], marks: Iterable[tuple[int, int, datetime]]) -> bool:
    return any(
        row["created"] < appended
        or (row["partition"] == partition and row["offset"] <= offset and row["created"] <= appended + SKEW)
        for partition, offset, appended in marks
    )


class Looked:
    """Which files were looked through for which marks; kept in `file`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        found = json.loads(file.read_text()) if file.exists() else {"files": [], "marks": []}
        self.files, self.marks = set(found["files"]), {tuple(mark) for mark in found["marks"]}
        self.now: list[str] = []

    def due(self, path: Path, marks: Marks) -> Marks:
        """The marks for which this file is to be looked through now."""
        if (stamp := _stamp(path)) not in self.files:
            due = marks
        else:
            left = {user: [mark for mark in of if _plain(mark) not in self.marks] for user, of in marks.items()}
            due = {user: of for user, of in left.items() if of}
        self.now.append(stamp)
        return due

    def save(self, marks: Marks) -> None:
        """All files that were asked about have been looked through for all of these marks."""
        plain = sorted(_plain(mark) for of in marks.values() for mark in of)
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps({"files": self.now, "marks": plain}))
        os.replace(draft, self.file)


def _stamp(path: Path) -> str:
    """A file and its content: the name of one that was taken back is used again."""
    found = path.stat()
    return f"{path.name} {found.st_size} {found.st_mtime_ns}"


def _plain(mark: tuple[int, int, datetime]) -> tuple[int, int, int]:
    return mark[0], mark[1], round(mark[2].timestamp() * 1000)
