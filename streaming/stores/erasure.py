"""Erasure requests, and the rows of the offline log that they cover.

A request holds its partition and offset in `user-events`. It covers the user's rows up to this offset in the same
partition. It also covers rows of any partition that were written before the request, because they may come from an
older log.

Compaction records which files were checked for which requests, without user ids, so that no file is checked twice.
"""

import json
import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

MAX_RECORD_TIME_SKEW: Final = timedelta(hours=1)  # by which record times of one log may be out of order


class ErasureRequest(NamedTuple):
    """The record of a request."""

    partition: int  # of `user-events`
    offset: int
    appended: datetime  # Kafka record time


ErasureRequests = dict[str, list[ErasureRequest]]  # by user


def read_requests(root: Path) -> ErasureRequests:
    """All requests in the log of erasure requests."""
    requests: ErasureRequests = {}
    for path in sorted(root.glob("*.parquet")):
        for row in pq.ParquetFile(path).read().to_pylist():
            request = ErasureRequest(row["partition"], row["offset"], row["appended"])
            requests.setdefault(row["user_id"], []).append(request)
    return requests


def drop_erased(rows: pa.Table, requests: ErasureRequests) -> pa.Table:
    """The rows that no request covers; the same object if no row is covered."""
    if not requests or "user_id" not in rows.column_names or "created" not in rows.column_names:
        return rows
    of_users = pc.is_in(rows["user_id"], value_set=pa.array(list(requests), pa.string()))
    indices: NDArray[np.int64] = np.flatnonzero(of_users.to_numpy(zero_copy_only=False))
    if not len(indices):
        return rows
    columns = rows.select(["user_id", "partition", "offset", "created"]).take(indices).to_pylist()
    erased = indices[[_is_covered(row, requests[row["user_id"]]) for row in columns]]
    if not len(erased):
        return rows
    keep = np.ones(len(rows), bool)
    keep[erased] = False
    return rows.filter(pa.array(keep))


def _is_covered(row: dict[str, Any], requests: Iterable[ErasureRequest]) -> bool:
    return any(
        row["created"] < appended
        or (
            row["partition"] == partition
            and row["offset"] <= offset
            and row["created"] <= appended + MAX_RECORD_TIME_SKEW
        )
        for partition, offset, appended in requests
    )


class ErasureProgress:
    """Which files were checked for which requests, in a JSON file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        found = json.loads(file.read_text()) if file.exists() else {"files": [], "requests": []}
        self.files, self.requests = set(found["files"]), {tuple(request) for request in found["requests"]}
        self.checked: list[str] = []  # files that this run asked about

    def unchecked(self, path: Path, requests: ErasureRequests) -> ErasureRequests:
        """The requests that this file must be checked for now."""
        if (identity := _file_identity(path)) not in self.files:
            unchecked = requests
        else:
            new = {
                user: [one for one in of_user if _as_json(one) not in self.requests]
                for user, of_user in requests.items()
            }
            unchecked = {user: of_user for user, of_user in new.items() if of_user}
        self.checked.append(identity)
        return unchecked

    def save(self, requests: ErasureRequests) -> None:
        """Record that all files that were asked about have been checked for all of these requests."""
        done = sorted(_as_json(request) for of_user in requests.values() for request in of_user)
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps({"files": self.checked, "requests": done}))
        os.replace(draft, self.file)


def _file_identity(path: Path) -> str:
    """A file's name, size and time. The name alone is not enough: a file that was withdrawn may be written again."""
    found = path.stat()
    return f"{path.name} {found.st_size} {found.st_mtime_ns}"


def _as_json(request: ErasureRequest) -> tuple[int, int, int]:
    """The request with its time in ms."""
    return request.partition, request.offset, round(request.appended.timestamp() * 1000)
