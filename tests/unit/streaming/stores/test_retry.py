"""Retries during a Redis outage: back-off, a bounded outage, and errors that are not retried."""

import threading
import time

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streaming.stores.retry import FIRST_WAIT_S, RedisUnavailableError, retry_until_available


class Failing:
    """A write that raises the given errors, one per call, and then returns its number of calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


def test_retry_returns_the_result_after_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    write, retries = Failing(RedisConnectionError("gone"), RedisTimeoutError("slow")), list[None]()
    started = time.monotonic()
    assert retry_until_available(write, "step", lambda: retries.append(None)) == 3
    assert time.monotonic() - started >= 3 * FIRST_WAIT_S  # the second wait is twice the first
    assert len(retries) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2  # one message each for start and end


def test_outage_is_bounded() -> None:
    write = Failing(*(RedisConnectionError("gone") for _ in range(100)))
    started = time.monotonic()
    with pytest.raises(RedisUnavailableError, match="PREMIERE_REDIS_URL"):
        retry_until_available(write, "step", lambda: None, max_outage_s=0.25)
    assert 0.25 <= time.monotonic() - started < 5
    assert write.calls == 3


def test_set_stop_ends_the_retries() -> None:
    stop = threading.Event()
    write = Failing(*(RedisConnectionError("gone") for _ in range(100)))
    with pytest.raises(RedisUnavailableError):
        retry_until_available(write, "step", stop.set, stop=stop)
    assert write.calls == 2


def test_other_error_is_raised_at_once() -> None:
    write = Failing(ResponseError("OOM"))
    with pytest.raises(ResponseError):
        retry_until_available(write, "step", lambda: None)
    assert write.calls == 1
