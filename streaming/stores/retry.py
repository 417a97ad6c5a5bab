"""Retry a write to Redis with bounded exponential back-off.

Redis is unavailable if it does not answer, or if it answers that it cannot write now (out of memory, read-only, failing
over, loading). A `CircuitBreaker` makes an attempt only after the back-off, so that a caller with other work does not
wait for the time-out of each. `retry_until_available` waits instead. This holds the whole flow back, so no record is
lost and none is skipped. After `max_outage_s`, or when the flow is asked to stop, the flow ends with an error and
resumes at the next start. Any other answer, such as a refused password, would not change by waiting: the flow ends at
once.
"""

import logging
import re
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError

from streaming.errors import StreamError

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_OUTAGE_S: Final = 300.0  # time without Redis after which a flow ends
FIRST_WAIT_S: Final = 0.1  # before the first retry; doubled before each further one
MAX_WAIT_S: Final = 5.0


class _Cause(NamedTuple):
    """Why Redis cannot write now, and what the operator can do."""

    state: str
    remedy: str


NO_ANSWER: Final = _Cause("does not answer", "start it again, or correct PREMIERE_REDIS_URL")
NO_MASTER: Final = _Cause(
    "has no master that its Sentinels know", "finish the failover, or correct the addresses in PREMIERE_REDIS_URL"
)
PASSING_CODES: Final = {  # code of Redis's answer -> cause
    "OOM": _Cause("is out of memory", "raise its maxmemory, or delete keys that nothing needs"),
    "READONLY": _Cause("is read-only", "finish the failover, or set PREMIERE_REDIS_URL to the primary"),
    "LOADING": _Cause("is loading its data", "wait until it has finished"),
    "MASTERDOWN": _Cause("has lost its primary", "start the primary, or finish the failover"),
    "NOREPLICAS": _Cause("has too few replicas", "start its replicas, or lower its min-replicas-to-write"),
    "MISCONF": _Cause("cannot save to its disk", "free space on its disk"),
    "CLUSTERDOWN": _Cause("is part of a cluster that is down", "start the missing nodes"),
    "TRYAGAIN": _Cause("is moving keys between nodes", "wait until the cluster has finished"),
    "BUSY": _Cause("is busy with a script", "end the script with SCRIPT KILL"),
}
REFUSED_REMEDIES: Final = {  # code of Redis's answer -> remedy
    "NOAUTH": "correct the user name and the password in PREMIERE_REDIS_URL",
    "NOPERM": "give the Redis user the permissions that docs/security.md lists",
    "CERTIFICATE": "set ssl_ca_certs in PREMIERE_REDIS_URL to the file of the authority that signed the certificate, "
    "and use a host name that the certificate has",
    "WRONGTYPE": "another program wrote a key with the prefix of Premiere: find it with redis-cli --scan --type string "
    "(or list, set, zset, stream) and delete it, or set PREMIERE_REDIS_URL to another database",
}
DEFAULT_REMEDY: Final = "remove the cause that the answer names"
# The client removes the code from the text of these errors. A subclass comes before its base class.
_CODES_BY_CLASS: Final[tuple[tuple[type[RedisError], str], ...]] = (
    (OutOfMemoryError, "OOM"),
    (ReadOnlyError, "READONLY"),
    (BusyLoadingError, "LOADING"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
    (TryAgainError, "TRYAGAIN"),
    (NoPermissionError, "NOPERM"),
    (AuthenticationError, "NOAUTH"),
    (AuthorizationError, "NOAUTH"),
)
_CODE: Final = re.compile(r"^-?([A-Z]{2,})(?= |$)")  # other answers begin with their code
# Redis 6 writes the place of an error inside a script before the code.
_SCRIPT: Final = re.compile(r"^(ERR )?Error running script \(call to f_\w+\): (@user_script: ?\d+: )+")
_SENTINEL_CLIENT: Final = re.compile(r"<redis\.client\.Redis\(.*?\)>\)>\)> - ")


class RedisUnavailableError(StreamError):
    """Redis could not write for longer than a flow waits. The message names the remedy."""


class RedisRefusedError(StreamError):
    """Redis refused a write for a reason that does not pass. The message names the remedy."""


class CircuitBreaker:
    """Attempts writes to Redis, and tells when the next attempt is due. `name` stands in its log messages."""

    def __init__(self, name: str, max_wait_s: float = MAX_WAIT_S) -> None:
        self.name, self.max_wait_s = name, max_wait_s
        self.wait_s, self.since, self.retry_at = FIRST_WAIT_S, 0.0, 0.0  # monotonic seconds
        self.error: RedisError | None = None  # of the last attempt, if Redis is unavailable

    @property
    def is_open(self) -> bool:
        """Whether the next attempt is not due yet."""
        return self.error is not None and time.monotonic() < self.retry_at

    def attempt(self, write: Callable[[], object]) -> bool:
        """Call `write`. Returns False if Redis is unavailable.

        Raises RedisRefusedError for an answer that does not pass, and every error of `write` that is not Redis's.
        """
        started = time.monotonic()
        try:
            write()
        except RedisError as error:
            self._fail(error, started)
            return False
        if self.error is not None:
            log.warning("%s: Redis answers again after %.1f s.", self.name, time.monotonic() - self.since)
            self.error = None
        return True

    def wait(self, max_outage_s: float, stop: threading.Event) -> None:
        """Wait for the next attempt. Raises RedisUnavailableError if the outage is too long, or once `stop` is set."""
        outage = time.monotonic() - self.since
        if outage >= max_outage_s or stop.is_set():
            assert self.error is not None, "there is no outage"
            cause = _cause(self.error) or NO_ANSWER
            raise RedisUnavailableError(
                f"Redis has accepted no write for {outage:.0f} s, because it {cause.state} ({answer_of(self.error)}): "
                f"{cause.remedy}; then start this flow again, which resumes where it stopped."
            ) from self.error
        stop.wait(min(self.retry_at - time.monotonic(), max_outage_s - outage))

    def _fail(self, error: RedisError, started: float) -> None:
        cause = _cause(error)
        if cause is None:
            raise _refused(error) from error
        if self.error is None:
            self.wait_s, self.since = FIRST_WAIT_S, started
            log.warning(
                "%s: Redis %s (%s); waiting for it. Remedy: %s.",
                self.name,
                cause.state,
                answer_of(error),
                cause.remedy,
            )
        else:
            self.wait_s = min(2 * self.wait_s, self.max_wait_s)
        self.error, self.retry_at = error, time.monotonic() + self.wait_s


def retry_until_available(
    write: Callable[[], T],
    name: str,
    on_retry: Callable[[], object],
    max_outage_s: float = MAX_OUTAGE_S,
    stop: threading.Event | None = None,
) -> T:
    """Call `write` until Redis can write, and return its result; `write` must be idempotent.

    `on_retry` is called before each retry. Raises RedisUnavailableError after `max_outage_s` seconds or once `stop` is
    set, and the errors of `CircuitBreaker.attempt`.
    """
    breaker, results, stop = CircuitBreaker(name), list[T](), stop or threading.Event()
    while not breaker.attempt(lambda: results.append(write())):
        breaker.wait(max_outage_s, stop)
        on_retry()
    return results[0]


def error_code(error: RedisError) -> str:
    """The code of Redis's answer, such as OOM, or of its kind; empty if there is none."""
    for kind, code in _CODES_BY_CLASS:
        if isinstance(error, kind):
            return code
    if _is_certificate_error(error.__context__):
        return "CERTIFICATE"
    found = _CODE.search(answer_of(error))
    return found[1] if found else ""


def answer_of(error: RedisError) -> str:
    """Redis's answer, without what surrounds it: ids of users in the command, redis-py's clients, the script."""
    return _SCRIPT.sub("", _SENTINEL_CLIENT.sub("", str(error).rpartition("of pipeline caused error: ")[2]))


def _is_certificate_error(error: BaseException | None) -> bool:
    """Whether TLS fails because of the server's certificate, or because of a file of certificates in the URL."""
    if isinstance(error, ssl.SSLError) and error.library in ("X509", "PEM"):  # the file contains no certificate
        return True
    return isinstance(error, ssl.SSLCertVerificationError | FileNotFoundError)


def is_outage(error: RedisError) -> bool:
    """Whether waiting may help: Redis does not answer, or cannot write now."""
    return _cause(error) is not None


def _cause(error: RedisError) -> _Cause | None:
    """Why Redis cannot write now; None if waiting does not help."""
    code = error_code(error)
    if code in PASSING_CODES or code in REFUSED_REMEDIES:  # a refused login is a connection error too
        return PASSING_CODES.get(code)
    if isinstance(error, MasterNotFoundError):
        return NO_MASTER
    return NO_ANSWER if isinstance(error, RedisConnectionError | RedisTimeoutError) else None


def _refused(error: RedisError) -> RedisRefusedError:
    remedy = REFUSED_REMEDIES.get(error_code(error), DEFAULT_REMEDY)
    answer = answer_of(error).rstrip(".")
    return RedisRefusedError(f"Redis refused a write ({answer}): {remedy}; then start this flow again.")
