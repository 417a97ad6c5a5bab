"""Writes the rows of the online store again, from the states of the flow, after the store has lost them.

Another Feast program can delete them (`feast teardown`), and a Redis can start without its data. The watch of the store
(`infra.run.feast_watch`) counts each loss. A source in the flow then asks every state for its row, a limited number per
second, so that the flow continues meanwhile. Feast ignores a row that it has, so a repetition changes nothing.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.operators import KeyedStream

log: Final = logging.getLogger(__name__)

INTERVAL: Final = timedelta(seconds=0.25)  # between two batches
SETTLE_S: Final = 30.0  # after the last batch, until its rows are in the store or in the sink's snapshot


class Restore(NamedTuple):
    """Asks a state for its present row."""

    since: int  # ms; a user without an event since then has no row in the online store


class LostRows:
    """What the watcher of the online store tells the flow, and the flow's answer. Used by two threads.

    - ttl: how long a row is kept; None: forever
    - stop: once set, the flow's input of lost rows ends
    - settle_s: time after the last batch until the answer
    """

    def __init__(
        self, rows_per_second: int, stop: threading.Event, ttl: timedelta | None = None, settle_s: float = SETTLE_S
    ) -> None:
        self.batch = max(1, int(rows_per_second * INTERVAL.total_seconds()))
        self.stop, self.ttl, self.settle_s = stop, ttl, settle_s
        self.losses = 0  # that the watcher has seen
        self.restored = 0  # the last loss after which all rows have been written


def add_restores(
    flow: Dataflow, items: KeyedStream[list[Any]], lost: LostRows | None, keys: Callable[[], list[str]]
) -> KeyedStream[list[Any]]:
    """The stream, with a `Restore` for each key after a loss; without `lost` the stream as it is."""
    if lost is None:
        return items
    return op.merge("with_restores", items, op.input("restores", flow, RestoreSource(lost, keys)))


class RestoreSource(DynamicSource[tuple[str, list[Restore]]]):
    """Yields (key, [Restore]) for each key after a loss; `keys` returns those of this process."""

    def __init__(self, lost: LostRows, keys: Callable[[], list[str]]) -> None:
        self.lost, self.keys = lost, keys

    def build(self, step_id: str, worker_index: int, worker_count: int) -> "_RestorePartition":
        return _RestorePartition(self)


class _RestorePartition(StatelessSourcePartition[tuple[str, list[Restore]]]):
    def __init__(self, source: RestoreSource) -> None:
        self.source = source
        self.loss = 0  # whose rows are being written, or have been written
        self.keys = list[str]()  # still to ask
        self.asked_at = 0.0  # monotonic seconds

    def next_batch(self) -> list[tuple[str, list[Restore]]]:
        lost = self.source.lost
        if lost.stop.is_set():
            raise StopIteration
        if self.loss != lost.losses:  # also if rows are lost again meanwhile
            self.loss, self.keys = lost.losses, self.source.keys()
            if self.keys:
                log.info("Writing the online rows of %d states again.", len(self.keys))
        if not self.keys:
            self._finish()
            return []
        batch, self.keys = self.keys[: lost.batch], self.keys[lost.batch :]
        self.asked_at = time.monotonic()
        oldest = 0 if lost.ttl is None else int((time.time() - lost.ttl.total_seconds()) * 1000)
        return [(key, [Restore(oldest)]) for key in batch]

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + INTERVAL

    def _finish(self) -> None:
        lost = self.source.lost
        if lost.restored != self.loss and time.monotonic() - self.asked_at > lost.settle_s:
            lost.restored = self.loss
            log.info("All online rows have been written.")
