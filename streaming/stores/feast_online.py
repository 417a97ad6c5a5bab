"""Writes feature rows to the online store at once, so that a user's features are up to date within milliseconds.

A sink has no timer: rows held back for a larger batch would wait for the next data or for the end of the epoch. So each
call writes all rows that have arrived: few at low rates and many under load. The write is idempotent, because the store
ignores rows that are not newer: reprocessing, or retrying half a batch, changes nothing.

While Redis is unavailable the sink holds the rows, and the flow continues. The snapshot contains the held rows, so a
crash loses none. Each call, also an empty one, writes them if the next attempt is due. Beyond `max_held_rows` the sink
waits, which holds the flow back (`streaming/stores/retry.py`).
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from prometheus_client import Counter, Gauge

from streaming.errors import StreamError
from streaming.kafka.ownership import SOLE_PROCESS, Owner
from streaming.stores.retry import MAX_OUTAGE_S, CircuitBreaker

Rows = list[dict[str, Any]]
WriteRows = Callable[[Sequence[dict[str, Any]]], None]
SinkState = tuple[int, Rows]  # format, held rows

# Partitions of the sink where several processes write: at least one per process. It never shrinks, because a recovery
# store keeps the partitions it has seen.
SINK_PARTITIONS: Final = 64
MAX_HELD_ROWS: Final = 10_000  # per worker; a row of a long history has some 2 KB
MAX_WAIT_S: Final = 30.0  # between two attempts; each may take five seconds, in which the flow stands still
STATE_FORMAT: Final = 1

ROWS_WRITTEN = Counter("premiere_online_rows_total", "Rows written to the online store.", ["step"])
ROWS_HELD = Gauge("premiere_online_held_rows", "Rows that wait for an unavailable online store.", ["step"])
WRITE_RETRIES = Counter("premiere_online_retries_total", "Failed writes to the online store.", ["step"])


class FeastSink(FixedPartitionedSink[Rows, SinkState | None]):
    """Writes lists of rows to the online store. Items are (key, rows), and the rows of a key keep their order.

    `write` may raise redis errors. While more than `max_held_rows` wait, it is called again until `max_outage_s`
    seconds have passed without success, or until `stop` is set because the flow is asked to stop.
    """

    def __init__(
        self,
        write: WriteRows,
        partitions: int = 1,
        max_outage_s: float = MAX_OUTAGE_S,
        stop: threading.Event | None = None,
        max_held_rows: int = MAX_HELD_ROWS,
        owner: Owner = SOLE_PROCESS,
    ) -> None:
        self.partitions, self.max_outage_s, self.max_held_rows = partitions, max_outage_s, max_held_rows
        self.stop = stop or threading.Event()

        def write_as_owner(rows: Sequence[dict[str, Any]]) -> None:
            owner.check()
            write(rows)

        self.write = write_as_owner

    def list_parts(self) -> list[str]:
        return [f"p{number:03d}" for number in range(self.partitions)]

    def build_part(self, step_id: str, for_part: str, resume_state: SinkState | None) -> "_Partition":
        return _Partition(self, step_id, resume_state)


class _Partition(StatefulSinkPartition[Rows, SinkState | None]):
    def __init__(self, sink: FeastSink, step_id: str, resume_state: SinkState | None) -> None:
        self.sink, self.step_id = sink, step_id
        self.breaker = CircuitBreaker(step_id, MAX_WAIT_S)
        self.held = _held_rows(resume_state)

    def write_batch(self, values: list[Rows]) -> None:
        """Write everything, or hold it. Raises RedisUnavailableError, RedisRefusedError."""
        for rows in values:
            self.held += rows
        if self.held and not self.breaker.is_open:
            self._write()
        while len(self.held) > self.sink.max_held_rows:
            self.breaker.wait(self.sink.max_outage_s, self.sink.stop)
            self._write()
        ROWS_HELD.labels(self.step_id).set(len(self.held))

    def snapshot(self) -> SinkState | None:
        """The rows that are not written yet."""
        return (STATE_FORMAT, list(self.held)) if self.held else None

    def _write(self) -> None:
        if self.breaker.attempt(lambda: self.sink.write(self.held)):
            ROWS_WRITTEN.labels(self.step_id).inc(len(self.held))
            self.held = []
        else:
            WRITE_RETRIES.labels(self.step_id).inc()


def _held_rows(state: SinkState | None) -> Rows:
    if state is None:
        return []
    state_format, rows = state
    if state_format != STATE_FORMAT:
        raise StreamError(
            f"A newer version wrote the online store's recovery state (format {state_format}): start that version."
        )
    return list(rows)
