"""Maintenance of the offline log: merges small files into one file per day, and deletes expired days and erased users.

* A file's day is that of its newest Kafka record time. Rows written together stay together, and a late event does not
  rewrite an old day's file. The day comes from the rows and not from file dates, so a copied folder is compacted the
  same way.
* A day file contains the rows of its inputs, sorted by user and time within row groups of ROW_GROUP_SIZE rows, so one
  row group bounds the memory. Its metadata names its inputs. The day file appears by one rename, and the inputs are
  deleted afterwards, by the next run if this one dies in between. Until then readers see the rows twice.
* Files of each generation's newest epoch stay as they are, because a sink may remove them after a crash (see
  `streaming/stores/parquet_log.py`), until Kafka can no longer deliver their events again.
* An erased user's rows are removed from every file, also the newest, by a rewrite and one rename: see
  `streaming/stores/erasure.py`. Requests are applied in batches, one pass over the files for all of them. Rows that a
  request covers may be staged but not yet published, so a file of requests is applied again in later runs. It is
  deleted once it is an hour old and no file that was staged before then is left.

Only one compaction runs at a time: a file lock that ends with its process. While a file is rewritten, no sink starts.
"""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from streaming.errors import StreamError
from streaming.stores.erasure import contains_user, drop_erased, read_requests
from streaming.stores.parquet_log import EPOCH_START_KEY, STAGING_FOLDER, fsync, locked

ROW_GROUP_SIZE: Final = 20_000
REQUEST_GRACE_S: Final = 3600.0  # from the writing of a request until no sink stages a row that it covers
INPUTS_KEY: Final = b"premiere.inputs"  # in a day file's metadata: the names of its inputs
_SINK_FILE: Final = re.compile(r"(p\d+-\w+)-(\d{10})\.parquet")
_DAY_FILE: Final = re.compile(r"day-(\d{4}-\d\d-\d\d)-\w+\.parquet")


class CompactionRunningError(StreamError):
    """Another compaction is running."""


class DamagedFileError(StreamError):
    """A file of the log cannot be read."""


class SinkFile(NamedTuple):
    """A file as a sink wrote it."""

    path: Path
    generation: str  # partition and generation
    number: int
    epoch_start: int  # number of its epoch's first file
    day: date | None  # of the newest row; None for a file without rows


class CompactionResult(NamedTuple):
    """Counts of what a run did to one log."""

    name: str
    merged: int = 0  # input files
    days: int = 0  # day files written
    erased: int = 0  # rows of erased users
    expired: int = 0  # day files deleted because of their age


def compact(
    folder: Path, today: date, retention_days: dict[str, int], requests_log: str, redelivery_days: int
) -> list[CompactionResult]:
    """Merge, expire and erase in all logs in `folder`. Raises CompactionRunningError, DamagedFileError.

    retention_days: by log; 0 or no entry keeps all days. requests_log: name of the log of erasure requests.
    redelivery_days: age after which Kafka can no longer deliver an event again.
    """
    safe = today - timedelta(days=redelivery_days)
    with _exclusive(folder):
        requests, request_files = read_requests(sorted((folder / requests_log).glob("p*.parquet")))
        logs = [path for path in folder.iterdir() if path.is_dir() and path.name not in (STAGING_FOLDER, requests_log)]
        results = [_compact_log(root, today, retention_days.get(root.name, 0), requests, safe) for root in sorted(logs)]
        _delete_applied(folder / requests_log, request_files, logs)
    return results


def _delete_applied(root: Path, files: Iterable[Path], logs: Iterable[Path]) -> None:
    """Delete files of requests that can cover no further row."""
    staged = [path.stat().st_mtime for log in logs for path in _staging(log).glob("*/*.parquet")]
    oldest = min(staged, default=time.time())
    with locked(root):
        for path in files:
            if path.exists() and path.stat().st_mtime + REQUEST_GRACE_S < oldest:
                path.unlink()


def _compact_log(root: Path, today: date, days: int, requests: pa.Table, safe: date) -> CompactionResult:
    for draft in _staging(root).glob("*.draft"):
        draft.unlink()
    _delete_merged(root)
    merged, written, erased = _merge(root, today, requests, safe)
    expired = [path for path, day in _day_files(root) if days and day < today - timedelta(days=days)]
    for path in expired:
        path.unlink()
    fsync(root)
    return CompactionResult(root.name, merged, written, erased + _erase(root, requests), len(expired))


def _delete_merged(root: Path) -> None:
    """Delete files that a day file contains already, because an earlier run died before it deleted them."""
    for path, _ in _day_files(root):
        for name in _input_names(path):
            (root / name).unlink(missing_ok=True)


def _merge(root: Path, today: date, requests: pa.Table, safe: date) -> tuple[int, int, int]:
    """Merge past days' files into one per day. Returns the counts of files merged, files written, rows erased."""
    by_day: dict[date, list[Path]] = {}
    for file in _mergeable(root, safe):
        if file.day is None:
            file.path.unlink()
        elif file.day < today:
            by_day.setdefault(file.day, []).append(file.path)
    merged, erased = 0, 0
    for day, sink_files in sorted(by_day.items()):
        inputs = sorted(path for path, other in _day_files(root) if other == day) + sink_files
        name = f"day-{day}-{hashlib.sha256(' '.join(path.name for path in inputs).encode()).hexdigest()[:12]}.parquet"
        with locked(root):
            inputs = [path for path in inputs if path.exists()]  # a sink that started may have removed one meanwhile
            metadata = {INPUTS_KEY: json.dumps(_encode_names(inputs))}
            erased += _rewrite(root, inputs, name, metadata, requests, sort=True)
            for path in inputs:
                path.unlink()
            fsync(root)
        merged += len(inputs)
    return merged, len(by_day), erased


def _erase(root: Path, requests: pa.Table) -> int:
    """Remove erased rows from every file. Returns the number of rows."""
    erased = 0
    for path in sorted(root.glob("*.parquet")) if len(requests) else ():
        with locked(root):
            if path.exists() and contains_user(path, requests):
                metadata = pq.read_schema(path).metadata
                erased += _rewrite(root, [path], path.name, metadata, requests, sort=False)
    return erased


def _rewrite(
    root: Path,
    inputs: list[Path],
    name: str,
    metadata: dict[bytes, Any] | None,
    requests: pa.Table,
    sort: bool,
) -> int:
    """Write the inputs' rows without the erased ones to one file, atomically. Returns the number of erased rows."""
    schema = pa.unify_schemas([pq.read_schema(path).remove_metadata() for path in inputs])  # older ones lack columns
    draft, erased = _staging(root) / f"{name}.draft", 0
    with pq.ParquetWriter(draft, schema.with_metadata(metadata), compression="zstd") as writer:
        for group in _row_groups(inputs, schema):
            rows = drop_erased(group, requests)
            erased += len(group) - len(rows)
            if sort:
                rows = rows.sort_by([(column, "ascending") for column in schema.names[:2]])
            writer.write_table(rows.replace_schema_metadata(metadata), row_group_size=ROW_GROUP_SIZE)
    fsync(draft)
    os.replace(draft, root / name)
    fsync(root)
    return erased


def _row_groups(inputs: Iterable[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """All rows in order, ROW_GROUP_SIZE at a time."""
    waiting: list[pa.Table] = [schema.empty_table()]
    for path in inputs:
        for batch in pq.ParquetFile(path).iter_batches(ROW_GROUP_SIZE):
            waiting.append(pa.Table.from_batches([batch]).replace_schema_metadata())
            while sum(map(len, waiting)) >= ROW_GROUP_SIZE:
                rows = pa.concat_tables(waiting, promote_options="default")
                yield rows.slice(0, ROW_GROUP_SIZE)
                waiting = [rows.slice(ROW_GROUP_SIZE)]
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting, promote_options="default")


def _mergeable(root: Path, safe: date) -> list[SinkFile]:
    """The files that sinks wrote, in order, without those that a sink may still remove."""
    files = sorted((file for path in root.glob("p*.parquet") if (file := _sink_file(path))), key=lambda f: f.path.name)
    newest = {file.generation: file for file in files}  # the last one of each generation
    return [
        file
        for file in files
        if file.number < (last := newest[file.generation]).epoch_start or (last.day or safe) < safe
    ]


def _sink_file(path: Path) -> SinkFile | None:
    if (match := _SINK_FILE.fullmatch(path.name)) is None:
        return None
    footer = _read_footer(path)
    names = footer.schema.to_arrow_schema().names
    column = names.index("created" if "created" in names else "appended")
    groups = range(footer.num_row_groups) if footer.num_rows else range(0)
    newest = [footer.row_group(n).column(column).statistics.max for n in groups]
    day = max(newest).astimezone(UTC).date() if newest else None
    epoch_start = (footer.metadata or {}).get(EPOCH_START_KEY, match[2].encode())
    return SinkFile(path, match[1], int(match[2]), int(epoch_start), day)


def _day_files(root: Path) -> list[tuple[Path, date]]:
    found = ((path, _DAY_FILE.fullmatch(path.name)) for path in sorted(root.glob("day-*.parquet")))
    return [(path, date.fromisoformat(match[1])) for path, match in found if match]


def _encode_names(inputs: Iterable[Path]) -> list[list[Any]]:
    """Names of files, compactly: [generation, first, last] for consecutive numbers, [name] for any other file."""
    ranges: list[list[Any]] = []
    for path in inputs:
        match = _SINK_FILE.fullmatch(path.name)
        if match is None:
            ranges.append([path.name])
        elif ranges and ranges[-1][0] == match[1] and ranges[-1][2] == int(match[2]) - 1:
            ranges[-1][2] += 1
        else:
            ranges.append([match[1], int(match[2]), int(match[2])])
    return ranges


def _input_names(path: Path) -> list[str]:
    """The names of the files that a day file contains."""
    ranges = json.loads((_read_footer(path).metadata or {}).get(INPUTS_KEY, b"[]"))
    runs = ((one[0], range(one[1], one[2] + 1)) for one in ranges if len(one) == 3)
    return [one[0] for one in ranges if len(one) == 1] + [f"{g}-{n:010d}.parquet" for g, run in runs for n in run]


def _read_footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except pa.ArrowInvalid as error:
        raise DamagedFileError(
            f"{path} is not a complete Parquet file ({error}): replace it with a copy or move it away. Until then"
            " nothing is compacted and no user is erased from the offline log."
        ) from error


def _staging(root: Path) -> Path:
    folder = root.parent / STAGING_FOLDER / root.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    (folder / STAGING_FOLDER).mkdir(parents=True, exist_ok=True)
    with open(folder / STAGING_FOLDER / "compaction.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CompactionRunningError(f"Another compaction of {folder} is running: wait until it ends.") from None
        yield
