"""The offline log: an append-only folder of Parquet files that contains each row exactly once, also after crashes.

The exception is a compaction: between the publication of a merged file and the deletion of its inputs, readers see
their rows twice. If it is interrupted there, the next compaction deletes the inputs.

The sink commits in two phases. `snapshot()` stages an epoch's rows as a file outside the published folder, and the
snapshot lists this file. The sink publishes the file by one rename once the snapshot is known to be durable:

* when data of the next epoch arrives, because the engine holds it back until then. An empty batch is enough:
  this is how an idle flow gets its last rows published;
* on resume: files that the snapshot lists are published; all other staged files belong to an epoch that did not commit;
* at `close()`, so that a run that ends leaves nothing unpublished. The engine closes a sink before the last epoch is
  durable, and also on a crash. So files are numbered, and a resumed partition removes those with numbers beyond its
  snapshot: their rows are written again.

A partition that starts without a snapshot starts a new generation: the files written from that start on. It is marked
as unconfirmed until one of its epochs is durable. If the next start finds no snapshot either, this generation's only
epoch never committed, and its files are removed. (So without a recovery store, the next start undoes a run of a single
epoch.)

Compaction (`streaming/stores/compaction.py`) merges and rewrites published files. It leaves the files of each
generation's newest epoch in place, because they may still be removed (each file names its epoch), and it takes the same
lock as such a removal.
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

from streaming.commit_metrics import SNAPSHOT_SECONDS
from streaming.errors import StreamError

log = logging.getLogger(__name__)

STAGING_FOLDER: Final = "_staging"  # beside the published folder, whose readers never see an incomplete file
EPOCH_START_KEY: Final = b"premiere.epoch"  # in a file's metadata: the number of its epoch's first file
STATE_FORMAT: Final = 1  # of a snapshot
MAX_BUFFERED_ROWS: Final = 20_000  # rows after which a file is staged within an epoch: bounds the memory

ROWS_STAGED = Counter("premiere_offline_rows_total", "Rows staged for the offline log.", ["log"])
FILES_PUBLISHED = Counter("premiere_offline_files_total", "Files published to the offline log.", ["log"])


class SinkState(NamedTuple):
    """A partition's snapshot, stored as a plain tuple."""

    format: int
    generation: str
    number: int  # of the next file
    pending: tuple[str, ...]  # staged files, to be published as soon as this snapshot is durable


class ParquetSink(FixedPartitionedSink[list[dict[str, Any]], tuple[Any, ...]]):
    """Appends lists of rows to the Parquet files of the folder `root`. Items are (key, rows).

    All rows of a key go to the same partition, in order. The number of partitions must never change.
    """

    def __init__(self, root: Path, partitions: int, schema: pa.Schema) -> None:
        self._root, self._partitions, self._schema = root, partitions, schema

    def list_parts(self) -> list[str]:
        return [f"p{number:03d}" for number in range(self._partitions)]

    def build_part(self, step_id: str, for_part: str, resume_state: tuple[Any, ...] | None) -> "_Partition":
        return _Partition(self._root, for_part, self._schema, resume_state)


class _Partition(StatefulSinkPartition[list[dict[str, Any]], tuple[Any, ...]]):
    def __init__(self, root: Path, name: str, schema: pa.Schema, resume_state: tuple[Any, ...] | None) -> None:
        self._root, self._name, self._schema = root, name, schema
        self._staging = root.parent / STAGING_FOLDER / root.name / name
        self._unconfirmed = self._staging / "unconfirmed"  # contains the generation that has no durable epoch yet
        for folder in (root, self._staging):
            folder.mkdir(parents=True, exist_ok=True)
        self._batches: list[pa.RecordBatch] = []
        self._buffered_rows = 0
        self._epoch_is_empty = True  # nothing was written since the last snapshot
        self._snapshots = 0
        with locked(root):
            self._state = self._start() if resume_state is None else self._resume(_read_state(resume_state))

    def write_batch(self, values: list[list[dict[str, Any]]]) -> None:
        """Buffer rows, and publish the last epoch at the first call of a new one."""
        if self._epoch_is_empty:
            self._confirm_epoch()
            self._epoch_is_empty = False
        rows = [row for batch in values for row in batch]
        if rows:
            self._batches.append(pa.RecordBatch.from_pylist(rows, schema=self._schema))
            self._buffered_rows += len(rows)
        if self._buffered_rows >= MAX_BUFFERED_ROWS:
            self._stage_rows()

    @SNAPSHOT_SECONDS.labels("parquet").time()
    def snapshot(self) -> tuple[Any, ...]:
        """Stage the epoch's rows, and return a SinkState as a plain tuple."""
        self._stage_rows()
        self._epoch_is_empty = True
        self._snapshots += 1
        return tuple(self._state)

    def close(self) -> None:
        """Publish the last epoch, unless it was interrupted: then no snapshot lists its staged files."""
        if self._epoch_is_empty:
            self._publish()

    def _start(self) -> SinkState:
        """Start a generation. Withdraw an earlier one that was never confirmed: it did not commit."""
        if self._unconfirmed.exists():
            for file in self._files(self._unconfirmed.read_text()):
                file.unlink()
        self._clear_staging()
        generation = uuid.uuid4().hex[:8]
        self._unconfirmed.write_text(generation)
        fsync(self._staging)
        return SinkState(STATE_FORMAT, generation, 0, ())

    def _resume(self, state: SinkState) -> SinkState:
        """Continue from a snapshot, with exactly the files that it knows."""
        self._state = state
        self._unconfirmed.unlink(missing_ok=True)
        self._publish()
        for file in self._files(state.generation):
            if int(file.stem.rsplit("-", 1)[1]) >= state.number:
                file.unlink()
        self._clear_staging()
        return self._state

    def _confirm_epoch(self) -> None:
        """The data of a new epoch arrives, so the last snapshot is durable: publish its files."""
        if self._snapshots == 1:
            self._unconfirmed.unlink(missing_ok=True)
        self._publish()

    def _publish(self) -> None:
        if not self._state.pending:
            return
        for name in self._state.pending:
            if (self._staging / name).exists():
                os.replace(self._staging / name, self._root / name)
                FILES_PUBLISHED.labels(self._root.name).inc()
            elif not (self._root / name).exists():
                log.warning("%s was written and then deleted: the offline log lacks its rows.", self._root / name)
        fsync(self._root)
        self._state = self._state._replace(pending=())

    def _stage_rows(self) -> None:
        if not self._batches:
            return
        _, generation, number, pending = self._state
        name = f"{self._name}-{generation}-{number:010d}.parquet"
        epoch_start = pending[0].rpartition("-")[2].removesuffix(".parquet") if pending else number
        table = pa.Table.from_batches(self._batches, schema=self._schema)
        table = table.replace_schema_metadata({EPOCH_START_KEY: str(int(epoch_start))})
        draft = self._staging / f"{name}.draft"
        pq.write_table(table, draft, compression="zstd")
        fsync(draft)
        os.replace(draft, self._staging / name)
        fsync(self._staging)
        ROWS_STAGED.labels(self._root.name).inc(self._buffered_rows)
        self._batches, self._buffered_rows = [], 0
        self._state = SinkState(STATE_FORMAT, generation, number + 1, (*pending, name))

    def _files(self, generation: str) -> Iterator[Path]:
        return self._root.glob(f"{self._name}-{generation}-*.parquet")

    def _clear_staging(self) -> None:
        for file in self._staging.glob("*.parquet*"):
            file.unlink()


def _read_state(state: tuple[Any, ...]) -> SinkState:
    if state[0] != STATE_FORMAT:
        raise StreamError(
            f"A newer version wrote the offline log's recovery state (format {state[0]}): start that version."
        )
    return SinkState(*state)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock for removing and rewriting files of this log. The lock ends with its process."""
    folder = root.parent / STAGING_FOLDER / root.name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fsync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
