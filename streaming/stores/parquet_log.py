"""The offline log: Parquet files that are only ever added, holding each row exactly once whatever crashes.

Two phases. At `snapshot()` an epoch's rows are staged as a file outside the published folder, and the snapshot lists
it. It is published, by one rename, once that snapshot is known to be durable:

* when data of the next epoch arrives, for the engine holds it back until then (an empty batch is data enough, which is
  how an idle flow gets its last rows published);
* on resume: what the snapshot lists is published, whatever else is staged belongs to an epoch that never happened;
* at `close()`, so that a run that ends leaves nothing waiting. The engine closes a sink before the last epoch is
  durable, and on a crash too. So files are numbered, and a resumed part takes back those numbered beyond its snapshot:
  the replay writes their rows again.

A part that starts without a snapshot starts a new generation of files, which it marks as unconfirmed until one of its
epochs is durable. If the next start finds no snapshot either, that generation's only epoch never happened, and its
files are taken back. (Hence without a recovery store a run of one single epoch is undone by the next start.)

Whoever merges or rewrites published files (`streaming/stores/compaction.py`) leaves those of each generation's newest epoch
in their places, for they may be taken back (each file names its epoch), and does it under `held`, as taking back does.
"""

import fcntl
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from prometheus_client import Counter

from streaming.commit_metrics import SNAPSHOT
from streaming.kafka.client import StreamError

log = logging.getLogger(__name__)

STAGING: Final = "_staging"  # beside the published folder: whoever reads that never sees half a file
EPOCH: Final = b"premiere.epoch"  # in a file's metadata: the number of its epoch's first file
FORMAT: Final = 1  # of a snapshot
BUFFER: Final = 20_000  # rows held before an epoch's first file is staged: bounds memory in a long epoch

ROWS_STAGED = Counter("premiere_offline_rows", "rows staged for the offline log", ["log"])
PUBLISHED = Counter("premiere_offline_files", "files published to the offline log", ["log"])


class SinkState(NamedTuple):
    """What a part's snapshot says; kept as a plain tuple, with the version of its format first."""

    format: int
    generation: str
    number: int  # of the next file
    pending: tuple[str, ...]  # staged, and published as soon as this snapshot is durable


class _Part(StatefulSinkPartition[list[dict[str, Any]], tuple[Any, ...]]):
    def __init__(self, root: Path, part: str, schema: pa.Schema, resume: tuple[Any, ...] | None) -> None:
        self._root, self._part, self._schema = root, part, schema
        self._stage = root.parent / STAGING / root.name / part
        self._mark = self._stage / "unconfirmed"  # holds the generation of which no epoch is known to be durable
        for folder in (root, self._stage):
            folder.mkdir(parents=True, exist_ok=True)
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0  # in them
        self._fresh = True  # nothing has been written since the last snapshot
        self._snapshots = 0
        with held(root):
            self._progress = self._start() if resume is None else self._resume(_read(resume))

    def write_batch(self, values: list[list[dict[str, Any]]]) -> None:
        if self._fresh:
            self._confirm()
            self._fresh = False
        rows = [row for batch in values for row in batch]
        if rows:
            self._batches.append(pa.RecordBatch.from_pylist(rows, schema=self._schema))
            self._rows += len(rows)
        if self._rows >= BUFFER:
            self._stage_rows()

    @SNAPSHOT.labels("parquet").time()
    def snapshot(self) -> tuple[Any, ...]:
        self._stage_rows()
        self._fresh = True
        self._snapshots += 1
        return tuple(self._progress)

    def close(self) -> None:
        if self._fresh:  # else: a crash in the middle of an epoch; its staged files are not listed anywhere
            self._publish()

    def _start(self) -> SinkState:
        """Begin a generation; one that was begun before and never confirmed did not happen."""
        if self._mark.exists():
            for file in self._files(self._mark.read_text()):
                file.unlink()
        self._clear_stage()
        generation = uuid.uuid4().hex[:8]
        self._mark.write_text(generation)
        sync(self._stage)
        return SinkState(FORMAT, generation, 0, ())

    def _resume(self, progress: SinkState) -> SinkState:
        """Go on from a snapshot, with exactly the files that it knows of."""
        self._progress = progress
        self._mark.unlink(missing_ok=True)
        self._publish()
        for file in self._files(progress.generation):
            if int(file.stem.rsplit("-", 1)[1]) >= progress.number:
                file.unlink()
        self._clear_stage()
        return self._progress

    def _confirm(self) -> None:
        """Data of a further epoch: the last snapshot is durable."""
        if self._snapshots == 1:
            self._mark.unlink(missing_ok=True)
        self._publish()

    def _publish(self) -> None:
        if not self._progress.pending:
            return
        for name in self._progress.pending:
            if (self._stage / name).exists():
                os.replace(self._stage / name, self._root / name)
                PUBLISHED.labels(self._root.name).inc()
            elif not (self._root / name).exists():
                log.warning("%s was written and is gone: its rows are missing from the offline log", self._root / name)
        sync(self._root)
        self._progress = self._progress._replace(pending=())

    def _stage_rows(self) -> None:
        if not self._batches:
            return
        _, generation, number, pending = self._progress
        name = f"{self._part}-{generation}-{number:010d}.parquet"
        first = pending[0].rpartition("-")[2].removesuffix(".parquet") if pending else number
        table = pa.Table.from_batches(self._batches, schema=self._schema)
        table = table.replace_schema_metadata({EPOCH: str(int(first))})
        draft = self._stage / f"{name}.draft"
        pq.write_table(table, draft, compression="zstd")
        sync(draft)
        os.replace(draft, self._stage / name)
        sync(self._stage)
        ROWS_STAGED.labels(self._root.name).inc(self._rows)
        self._batches, self._rows = [], 0
        self._progress = SinkState(FORMAT, generation, number + 1, (*pending, name))

    def _files(self, generation: str) -> Iterator[Path]:
        return self._root.glob(f"{self._part}-{generation}-*.parquet")

    def _clear_stage(self) -> None:
        for file in self._stage.glob("*.parquet*"):
            file.unlink()


class ParquetSink(FixedPartitionedSink[list[dict[str, Any]], tuple[Any, ...]]):
    """Rows, in lists, appended to the Parquet files of the folder `root`; `parts` is fixed for life.

    Items are (key, rows); a key's rows always go to the same part, in order.
    """

    def __init__(self, root: Path, parts: int, schema: pa.Schema) -> None:
        self._root, self._parts, self._schema = root, parts, schema

    def list_parts(self) -> list[str]:
        return [f"p{number:03d}" for number in range(self._parts)]

    def build_part(self, step_id: str, for_part: str, resume_state: tuple[Any, ...] | None) -> _Part:
        return _Part(self._root, for_part, self._schema, resume_state)


def _read(state: tuple[Any, ...]) -> SinkState:
    if state[0] != FORMAT:
        raise StreamError(
            f"Progress of format {state[0]} in the offline log was written by a newer version: run that one."
        )
    return SinkState(*state)


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Keep everybody else from taking back or rewriting files of this log; the lock ends with its process."""
    folder = root.parent / STAGING / root.name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
