"""The offline log's upkeep: small files become one file a day, old days go, and so does what is to be forgotten.

* A day is that of the newest Kafka record time in a file: what was written together stays together, a late event makes
  no old day's file anew, and a copy of the folder is compacted as the folder (a file's own date would not be copied).
* A day's file holds the rows of its inputs, sorted by user and time within groups of GROUP rows, so that memory is
  bounded by a group. It names its inputs in its metadata: it appears by one rename, and the inputs go afterwards, by
  the next run where this one dies in between. Until they have gone, readers see their rows twice.
* Files of each generation's newest epoch stay as they are (see `streaming/stores/parquet_log.py`), until their day is so long ago
  that nothing can be read from Kafka again.
* A forgotten user's rows go from every file, the newest included, by a rewrite and one rename: `streaming/stores/erasure.py`.
* The marks themselves go when nothing can come again from Kafka.

One compaction at a time: a lock on a file, which ends with its process. While a file is worked on, no sink starts.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streaming.kafka.client import StreamError
from streaming.stores.erasure import Looked, Marks, read_marks, without
from streaming.stores.parquet_log import EPOCH, STAGING, held, sync

GROUP: Final = 20_000  # rows of a group
INPUTS: Final = b"premiere.inputs"
_SMALL: Final = re.compile(r"(p\d+-\w+)-(\d{10})\.parquet")
_DAY: Final = re.compile(r"day-(\d{4}-\d\d-\d\d)-\w+\.parquet")


class BusyError(StreamError):
    """Another compaction is at work."""


class DamagedError(StreamError):
    """A file of the log cannot be read."""


class Small(NamedTuple):
    """A file as a sink wrote it."""

    path: Path
    generation: str  # and part
    number: int
    epoch: int  # number of the epoch's first file
    day: date | None  # of the newest row; None: it has no rows


class Done(NamedTuple):
    """What a run did to one log."""

    name: str
    merged: int = 0  # files
    days: int = 0  # files of days that were written
    erased: int = 0  # rows of forgotten users
    expired: int = 0  # files of days that were kept long enough


def compact(folder: Path, today: date, keep: dict[str, int], marks: str, settled: int) -> list[Done]:
    """Bring the logs in `folder` in order. `keep`: days by log, 0 for ever; `marks`: the log of requests to forget.

    `settled`: days after which nothing comes again from Kafka. Raises BusyError, DamagedError.
    """
    safe = today - timedelta(days=settled)
    with _alone(folder):
        asked = read_marks(folder / marks)
        logs = sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in (STAGING, marks))
        done = [_keep_up(root, today, keep.get(root.name, 0), asked, safe) for root in logs]
        if (folder / marks).exists():  # last: by now each mark has been heeded
            done.append(_keep_up(folder / marks, today, settled, {}, safe))
    return done


def _keep_up(root: Path, today: date, days: int, marks: Marks, safe: date) -> Done:
    for draft in _stage(root).glob("*.draft"):
        draft.unlink()
    _finish(root)
    merged, written, erased = _merge(root, today, marks, safe)
    expired = [path for path, day in _days(root) if days and day < today - timedelta(days=days)]
    for path in expired:
        path.unlink()
    sync(root)
    return Done(root.name, merged, written, erased + _erase(root, marks), len(expired))


def _finish(root: Path) -> None:
    """Remove what a day's file already holds: a run before this one died while it did."""
    for path, _ in _days(root):
        for name in _inputs(path):
            (root / name).unlink(missing_ok=True)


def _merge(root: Path, today: date, marks: Marks, safe: date) -> tuple[int, int, int]:
    """Past days' files into one a day: files merged, files written, rows left out."""
    history: dict[date, list[Path]] = {}
    for small in _movable(root, safe):
        if small.day is None:
            small.path.unlink()
        elif small.day < today:
            history.setdefault(small.day, []).append(small.path)
    merged, erased = 0, 0
    for day, small_files in sorted(history.items()):
        inputs = sorted(path for path, of in _days(root) if of == day) + small_files
        name = f"day-{day}-{hashlib.sha256(' '.join(path.name for path in inputs).encode()).hexdigest()[:12]}.parquet"
        with held(root):
            inputs = [path for path in inputs if path.exists()]  # a start may have taken one back meanwhile
            metadata = {INPUTS: json.dumps(_ranges(inputs))}
            erased += _rewrite(root, inputs, name, metadata, marks, sort=True)
            for path in inputs:
                path.unlink()
            sync(root)
        merged += len(inputs)
    return merged, len(history), erased


def _erase(root: Path, marks: Marks) -> int:
    """Leave out what marks cover, in every file that was not looked through for them: how many rows."""
    looked, erased = Looked(_stage(root) / "looked.json"), 0
    for path in sorted(root.glob("*.parquet")):
        with held(root):
            if path.exists() and (due := looked.due(path, marks)) and _mentions(path, due):
                erased += _rewrite(root, [path], path.name, pq.read_schema(path).metadata, due, sort=False)
    looked.save(marks)
    return erased


def _mentions(path: Path, marks: Marks) -> bool:
    """Whether a file has a row of one of these users."""
    file = pq.ParquetFile(path)
    if "user_id" not in file.schema_arrow.names:
        return False
    users = pa.array(list(marks), pa.string())
    batches = file.iter_batches(GROUP, columns=["user_id"])
    return any(pc.any(pc.is_in(batch["user_id"], value_set=users)).as_py() for batch in batches)


def _rewrite(
    root: Path, inputs: list[Path], name: str, metadata: dict[bytes, Any] | None, marks: Marks, sort: bool
) -> int:
    """Write the inputs' rows, less those that marks cover, as one file, which appears whole: how many were left out."""
    schema = pq.read_schema(inputs[0]).with_metadata(metadata)
    draft, left_out = _stage(root) / f"{name}.draft", 0
    with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        for group in _groups(inputs):
            rows = without(group, marks)
            left_out += len(group) - len(rows)
            if sort:
                rows = rows.sort_by([(column, "ascending") for column in schema.names[:2]])
            writer.write_table(rows.replace_schema_metadata(metadata), row_group_size=GROUP)
    sync(draft)
    os.replace(draft, root / name)
    sync(root)
    return left_out


def _groups(inputs: Iterable[Path]) -> Iterator[pa.Table]:
    """All rows in order, GROUP at a time."""
    waiting: list[pa.Table] = []
    for path in inputs:
        for batch in pq.ParquetFile(path).iter_batches(GROUP):
            waiting.append(pa.Table.from_batches([batch]).replace_schema_metadata())
            while sum(map(len, waiting)) >= GROUP:
                rows = pa.concat_tables(waiting)
                yield rows.slice(0, GROUP)
                waiting = [rows.slice(GROUP)]
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting)


def _movable(root: Path, safe: date) -> list[Small]:
    """The files as sinks wrote them, in order, less those that may still be taken back."""
    found = sorted((small for path in root.glob("p*.parquet") if (small := _small(path))), key=lambda s: s.path.name)
    newest = {small.generation: small for small in found}  # the last of each
    return [
        small for small in found if small.number < (last := newest[small.generation]).epoch or (last.day or safe) < safe
    ]


def _small(path: Path) -> Small | None:
    if (match := _SMALL.fullmatch(path.name)) is None:
        return None
    file = _footer(path)
    names = file.schema.to_arrow_schema().names
    at = names.index("created" if "created" in names else "appended")
    newest = [file.row_group(n).column(at).statistics.max for n in range(file.num_row_groups)] if file.num_rows else []
    day = max(newest).astimezone(UTC).date() if newest else None
    epoch = (file.metadata or {}).get(EPOCH, match[2].encode())
    return Small(path, match[1], int(match[2]), int(epoch), day)


def _days(root: Path) -> list[tuple[Path, date]]:
    found = ((path, _DAY.fullmatch(path.name)) for path in sorted(root.glob("day-*.parquet")))
    return [(path, date.fromisoformat(match[1])) for path, match in found if match]


def _ranges(inputs: Iterable[Path]) -> list[list[Any]]:
    """Names of files, in little room: [generation, first, last] for a run of numbers, [name] for another file."""
    ranges: list[list[Any]] = []
    for path in inputs:
        match = _SMALL.fullmatch(path.name)
        if match is None:
            ranges.append([path.name])
        elif ranges and ranges[-1][0] == match[1] and ranges[-1][2] == int(match[2]) - 1:
            ranges[-1][2] += 1
        else:
            ranges.append([match[1], int(match[2]), int(match[2])])
    return ranges


def _inputs(path: Path) -> list[str]:
    """The names of the files that a day's file holds."""
    ranges = json.loads((_footer(path).metadata or {}).get(INPUTS, b"[]"))
    runs = ((one[0], range(one[1], one[2] + 1)) for one in ranges if len(one) == 3)
    return [one[0] for one in ranges if len(one) == 1] + [f"{g}-{n:010d}.parquet" for g, run in runs for n in run]


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except pa.ArrowInvalid as error:
        raise DamagedError(
            f"{path} is no whole Parquet file ({error}): put a copy in its place or move it away; until then"
            " nothing is compacted, and nobody's rows are removed."
        ) from error


def _stage(root: Path) -> Path:
    folder = root.parent / STAGING / root.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    (folder / STAGING).mkdir(parents=True, exist_ok=True)
    with open(folder / STAGING / "compaction.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"Another compaction of {folder} is at work: wait until it is done.") from None
        yield
