"""Writes feature rows to the online store at once, so that a user's features are up to date within milliseconds.

A sink has no timer: rows held back for a larger batch would wait for the next data or for the end of the epoch. So each
call writes all rows that have arrived: few at low rates and many under load. A snapshot has nothing left to flush. The
write is idempotent, because the store ignores rows that are not newer: reprocessing, or retrying half a batch, changes
nothing. While Redis is unavailable the sink retries, which holds the flow back (`streaming/stores/retry.py`).
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from prometheus_client import Counter

from streaming.stores.retry import MAX_OUTAGE_S, retry_until_available

Rows = list[dict[str, Any]]
WriteRows = Callable[[Sequence[dict[str, Any]]], None]

# Partitions of the sink where several processes write: at least one per process. It never shrinks, because a recovery
# store keeps the partitions it has seen.
SINK_PARTITIONS: Final = 64

ROWS_WRITTEN = Counter("premiere_online_rows_total", "Rows written to the online store.", ["step"])
WRITE_RETRIES = Counter("premiere_online_retries_total", "Retried writes to the online store.", ["step"])


class FeastSink(FixedPartitionedSink[Rows, None]):
    """Writes lists of rows to the online store. Items are (key, rows), and the rows of a key keep their order.

    `write` may raise redis's connection and timeout errors: it is called again until `max_outage_s` seconds have passed
    without success, or until `stop` is set because the flow is asked to stop.
    """

    def __init__(
        self,
        write: WriteRows,
        partitions: int = 1,
        max_outage_s: float = MAX_OUTAGE_S,
        stop: threading.Event | None = None,
    ) -> None:
        self._write, self._partitions, self._max_outage_s = write, partitions, max_outage_s
        self._stop = stop or threading.Event()

    def list_parts(self) -> list[str]:
        return [f"p{number:03d}" for number in range(self._partitions)]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Partition":
        return _Partition(step_id, self._write, self._max_outage_s, self._stop)


class _Partition(StatefulSinkPartition[Rows, None]):
    def __init__(self, step_id: str, write: WriteRows, max_outage_s: float, stop: threading.Event) -> None:
        self._step_id, self._write, self._max_outage_s, self._stop = step_id, write, max_outage_s, stop

    def write_batch(self, values: list[Rows]) -> None:
        """Write everything. Raises RedisUnavailableError."""
        rows = [row for batch in values for row in batch]
        if rows:
            on_retry = WRITE_RETRIES.labels(self._step_id).inc
            retry_until_available(partial(self._write, rows), self._step_id, on_retry, self._max_outage_s, self._stop)
            ROWS_WRITTEN.labels(self._step_id).inc(len(rows))

    def snapshot(self) -> None:
        """There is nothing to flush."""
