"""Rows into the online store, at once: what a viewer did is there to be read some milliseconds later.

A sink has no timer, so a row that it held back for a fuller batch would wait for the next data or for the end of the
epoch. It holds nothing: each call writes all the rows that had come by then, few when the stream is quiet and many
under load, and so a snapshot has nothing left to flush. The write is idempotent (the store ignores what is not newer),
so a replay, or a second try after half a batch, changes nothing.

When the store is gone, the sink waits and tries again, which holds the whole flow back; that is the point.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from prometheus_client import Counter
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streaming.kafka.client import StreamError

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]
Write = Callable[[Sequence[dict[str, Any]]], None]

PARTS: Final = 64  # where several processes write: at least as many, and never fewer than a recovery store knows
PATIENCE: Final = 300.0  # seconds without the store after which a flow gives up
FIRST_WAIT: Final = 0.1  # seconds; doubled at each further try
LONGEST_WAIT: Final = 5.0  # seconds

WRITTEN = Counter("premiere_online_rows", "rows handed to the online store", ["step"])
RETRIES = Counter("premiere_online_retries", "writes to the online store that were tried again", ["step"])


class OnlineStoreGoneError(StreamError):
    """The online store did not answer for longer than a flow waits; the message says what to do."""


class _Part(StatefulSinkPartition[Rows, None]):
    def __init__(self, step: str, write: Write, patience: float, stop: threading.Event) -> None:
        self._step, self._write, self._patience, self._stop = step, write, patience, stop

    def write_batch(self, values: list[Rows]) -> None:
        rows = [row for batch in values for row in batch]
        if rows:
            self._until_written(rows)
            WRITTEN.labels(self._step).inc(len(rows))

    def snapshot(self) -> None:
        """Nothing is held back."""

    def _until_written(self, rows: Rows) -> None:
        """Write, waiting for a store that is gone. Raises OnlineStoreGoneError after `patience` or at `stop`."""
        wait, since = FIRST_WAIT, time.monotonic()
        while True:
            try:
                self._write(rows)
            except (RedisConnectionError, RedisTimeoutError) as error:
                away = time.monotonic() - since
                if away >= self._patience or self._stop.is_set():
                    raise OnlineStoreGoneError(
                        f"Redis did not answer for {away:.0f} s ({error}): start it again, or correct"
                        " PREMIERE_REDIS_URL, then start this flow again; it goes on where it was."
                    ) from error
                if wait == FIRST_WAIT:
                    log.warning("%s: Redis does not answer (%s); waiting for it", self._step, error)
                RETRIES.labels(self._step).inc()
                self._stop.wait(min(wait, self._patience - away))
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                if wait > FIRST_WAIT:
                    log.warning("%s: Redis answers again after %.1f s", self._step, time.monotonic() - since)
                return


class FeastSink(FixedPartitionedSink[Rows, None]):
    """Lists of rows, written to the online store by `write`; items are (key, rows), and a key's rows keep their order.

    `write` may raise redis's connection and timeout errors: it is called again until `patience` seconds have passed
    without success, or until `stop` is set, which a flow that is asked to end does.
    """

    def __init__(
        self, write: Write, parts: int = 1, patience: float = PATIENCE, stop: threading.Event | None = None
    ) -> None:
        self._write, self._parts, self._patience = write, parts, patience
        self._stop = stop or threading.Event()

    def list_parts(self) -> list[str]:
        return [f"p{number:03d}" for number in range(self._parts)]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Part:
        return _Part(step_id, self._write, self._patience, self._stop)
