"""Retry a write to Redis with bounded exponential back-off.

A flow waits while Redis is unavailable. This holds the whole flow back, so no record is lost and none is skipped. After
`max_outage_s`, or when the flow is asked to stop, the flow ends with an error and resumes at the next start.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streaming.errors import StreamError

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_OUTAGE_S: Final = 300.0  # time without Redis after which a flow ends
FIRST_WAIT_S: Final = 0.1  # before the first retry; doubled before each further one
MAX_WAIT_S: Final = 5.0


class RedisUnavailableError(StreamError):
    """Redis did not answer for longer than a flow waits. The message names the remedy."""


def retry_until_available(
    write: Callable[[], T],
    name: str,
    on_retry: Callable[[], object],
    max_outage_s: float = MAX_OUTAGE_S,
    stop: threading.Event | None = None,
) -> T:
    """Call `write` until Redis answers, and return its result; `write` must be idempotent.

    `name` stands in log messages, `on_retry` is called before each retry. Raises RedisUnavailableError after
    `max_outage_s` seconds or once `stop` is set, and every error that is neither a connection error nor a timeout.
    """
    stop = stop or threading.Event()
    wait, since = FIRST_WAIT_S, time.monotonic()
    while True:
        try:
            result = write()
        except (RedisConnectionError, RedisTimeoutError) as error:
            outage = time.monotonic() - since
            if outage >= max_outage_s or stop.is_set():
                raise RedisUnavailableError(
                    f"Redis did not answer for {outage:.0f} s ({error}): start it again, or correct"
                    " PREMIERE_REDIS_URL; then start this flow again, which resumes where it stopped."
                ) from error
            if wait == FIRST_WAIT_S:
                log.warning("%s: Redis does not answer (%s); waiting for it.", name, error)
            on_retry()
            stop.wait(min(wait, max_outage_s - outage))
            wait = min(2 * wait, MAX_WAIT_S)
        else:
            if wait > FIRST_WAIT_S:
                log.warning("%s: Redis answers again after %.1f s.", name, time.monotonic() - since)
            return result
