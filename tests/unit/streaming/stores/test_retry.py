"""Retries during a Redis outage: back-off, a bounded outage, answers that pass, and answers that do not."""

import threading
import time

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streaming.stores.retry import (
    FIRST_WAIT_S,
    PASSING_CODES,
    RedisRefusedError,
    RedisUnavailableError,
    error_code,
    retry_until_available,
)

IN_SCRIPT = "Error running script (call to f_1): @user_script:5: @user_script: 5: "  # how Redis 6 begins such an answer


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


@pytest.mark.parametrize("code", PASSING_CODES)
@pytest.mark.parametrize(
    "before", ["", IN_SCRIPT + "-", f"Command # 1 (SADD k x) of pipeline caused error: {IN_SCRIPT}-"]
)
def test_answer_that_passes_is_an_outage_with_its_own_remedy(code: str, before: str) -> None:
    write = Failing(ResponseError(f"{before}{code} The answer."))
    assert retry_until_available(write, "step", lambda: None) == 2
    with pytest.raises(RedisUnavailableError, match=PASSING_CODES[code].remedy):
        retry_until_available(Failing(ResponseError(f"{before}{code} The answer.")), "step", lambda: None, 0.0)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
            "another program wrote a key",
        ),
        (ResponseError(IN_SCRIPT + "WRONGTYPE Operation against a key"), "another program wrote a key"),
        (AuthenticationError("Authentication required."), "password"),
        (NoPermissionError("this user has no permissions to run the 'sadd' command"), "permissions"),
        (ResponseError("unknown command, with args beginning with: -OOM"), "remove the cause"),
        (ResponseError("Command # 1 (SADD k OOM READONLY) of pipeline caused error: no reason"), "remove the cause"),
    ],
)
def test_answer_that_does_not_pass_ends_the_flow_at_once(error: RedisError, remedy: str) -> None:
    write = Failing(error)
    with pytest.raises(RedisRefusedError, match=remedy):
        retry_until_available(write, "step", lambda: None)
    assert write.calls == 1


def test_code_of_a_real_answer_is_found(redis_url: str) -> None:
    client = Redis.from_url(redis_url)
    key = "test_code_of_a_real_answer_is_found"
    client.set(key, "text")
    pipeline = client.pipeline(transaction=False)
    pipeline.eval("return redis.call('SADD', KEYS[1], ARGV[1])", 1, key, "-OOM")
    with pytest.raises(ResponseError) as caught:
        pipeline.execute()
    client.delete(key)
    assert error_code(caught.value) == "WRONGTYPE"


def test_error_of_another_kind_is_raised_unchanged() -> None:
    write = Failing(KeyError("a fault of the program"))
    with pytest.raises(KeyError):
        retry_until_available(write, "step", lambda: None)
    assert write.calls == 1
