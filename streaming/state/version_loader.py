"""Loads announced model versions in background threads for the flow `publish`, and applies rollbacks.

No error of a load ends the flow: the served version stays in service. A version that could not be loaded is skipped,
and tried again with back-off if the error may pass. A load that hangs is abandoned after a timeout.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from concurrent.futures import Future
from threading import Thread
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge

from model.checkpoint import CheckpointError
from model.recommender import Recommender
from streaming.phase import Phase, enter
from streaming.rate_limited_warning import RateLimitedWarning
from streaming.records import Title, Version
from streaming.state.model_versions import VersionFence
from streaming.state.publisher import Publisher

LOADING_CHECK_INTERVAL_S: Final = 0.02  # between two checks whether a version has been loaded
MAX_QUEUED_VERSIONS: Final = 16  # how many older versions are tried if newer ones cannot be loaded
LOADING_TIMEOUT_S: Final = 300.0  # after which a load is abandoned
MAX_ABANDONED_LOADS: Final = 4  # that may still run; each holds a thread and memory
FIRST_RETRY_S, MAX_RETRY_S = 1.0, 60.0  # wait before the first retry, doubled before each further one
# A retry does not help after these errors: of the checkpoint's content, or of the program. All others may pass.
PERMANENT_ERRORS: Final = (
    CheckpointError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
)

SLOW_LOAD: Final = (
    "Version %d took %.1f s to load, and version %d is waiting already: lists are computed with old versions. Raise "
    "checkpoint_seconds, or give the flow more CPU."
)

ROLLBACK_VERSION: Final = Gauge(
    "premiere_rollback_version", "Number of the active rollback, which holds back later versions; -1 if none."
)
VERSIONS_SKIPPED: Final = Counter("premiere_versions_skipped_total", "Announced versions that could not be loaded.")
ROLLBACK_VERSION.set(-1)

log: Final = logging.getLogger(__name__)

LoadVersion = Callable[[str, Sequence[Title]], Recommender]  # (checkpoint URL, titles to add); raises CheckpointError


class Announced(NamedTuple):
    """A model version and its number, which is its record's offset."""

    number: int
    version: Version


class _Load(NamedTuple):
    """A version that is being loaded."""

    announced: Announced
    ahead: list[Title]  # titles that the load adds
    future: Future[Recommender]
    began: float
    deadline: float


class _Failure(NamedTuple):
    """The failed attempts to load a version, and when to try again."""

    attempts: int
    retry_at: float


class VersionLoader:
    """Loads announced versions in a background thread, and gives them to the publisher.

    The newest version is loaded first. If it cannot be loaded, the next older one is tried, unless that one is older
    than the served version. A version to try again waits in the queue. The effect of an announcement depends on its
    cause:

    - "learned": queued; held back while a rollback is active. It ends an automatic rollback
    - "rollback": becomes the active rollback. It is queued; queued versions that are later than its model are held
      back. An automatic one has no effect while one by an operator is active
    - "rollforward": ends the rollback. It and the held-back versions are queued
    """

    def __init__(
        self,
        publisher: Publisher,
        load: LoadVersion,
        announced: Iterable[Announced],
        timeout_s: float = LOADING_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.publisher, self.load, self.timeout_s, self.clock = publisher, load, timeout_s, clock
        self.rollback: Announced | None = None  # the active one
        self.queue: deque[Announced] = deque(maxlen=MAX_QUEUED_VERSIONS)  # to load, oldest first
        self.fence = VersionFence()
        self.held_back: deque[Announced] = deque(maxlen=MAX_QUEUED_VERSIONS)  # until the rollback ends
        history = list(announced)  # the whole history, because the active rollback may be long ago
        self.add(history)
        if self.rollback is not None:  # the newest versions that it permits, which are not the newest of the history
            permitted = (one for one in history if one.number <= self.rollback.number and self._is_allowed(one))
            self.queue = deque(permitted, MAX_QUEUED_VERSIONS)
        self._current: _Load | None = None
        self._abandoned: list[Future[Recommender]] = []  # loads after their timeout that still run
        self._slow_load, self._late_loads = RateLimitedWarning(log, SLOW_LOAD, clock), 0
        self._failures: dict[int, _Failure] = {}  # by version, of those to try again

    @property
    def loading(self) -> bool:
        """Whether a version is being loaded, or can be loaded now."""
        return self._current is not None or self._next() is not None

    def add(self, announced: Iterable[Announced]) -> None:
        """Apply new announcements, in their order."""
        for announcement in announced:
            if not self.fence.accepts(announcement.version):
                continue
            cause, automatic = announcement.version.cause, announcement.version.automatic
            is_held = self.rollback is not None and not self.rollback.version.automatic
            if is_held and (cause == "learned" or automatic):
                self.held_back.extend([] if automatic else [announcement])
                continue
            if cause == "rollback":
                self.rollback = announcement
                self.held_back.extend(other for other in self.queue if not self._is_allowed(other))
                self.queue = deque((other for other in self.queue if self._is_allowed(other)), MAX_QUEUED_VERSIONS)
            elif self.rollback is not None:
                self.queue.extend(self.held_back if cause == "rollforward" else [])
                self.rollback = None
                self.held_back.clear()
            self.queue.append(announcement)
        ROLLBACK_VERSION.set(-1 if self.rollback is None else self.rollback.number)

    def wait(self) -> None:
        """Wait for the version that is being loaded, for at most one check interval."""
        if self._current is not None:
            futures.wait([self._current.future], LOADING_CHECK_INTERVAL_S)

    def step(self) -> None:
        """Serve the version that has been loaded, and start to load the next."""
        self._abandoned = [future for future in self._abandoned if not future.done()]
        if self._current is not None and self._current.future.done():
            loaded, self._current = self._current, None
            if self._is_allowed(loaded.announced):
                self._serve(loaded)
            else:  # a rollback was announced meanwhile
                self.held_back.append(loaded.announced)
        elif self._current is not None and self.clock() >= self._current.deadline:
            self._abandon(self._current)
        newer = (announced for announced in self.queue if announced.number > self.publisher.version)
        self.queue = deque(newer, MAX_QUEUED_VERSIONS)
        if self._current is None and (announced := self._next()) is not None:
            self.queue.remove(announced)
            self._start(announced)

    def _is_allowed(self, announced: Announced) -> bool:
        """Whether the active rollback permits a version.

        Versions older than the target of the rollback are permitted: they replace the target if it cannot be loaded.
        """
        rollback = self.rollback
        return rollback is None or announced.number == rollback.number or announced.version.step < rollback.version.step

    def _next(self) -> Announced | None:
        """The newest queued version that is newer than the served one and does not wait for a retry."""
        if len(self._abandoned) >= MAX_ABANDONED_LOADS:
            return None
        now = self.clock()
        for announced in reversed(self.queue):
            failure = self._failures.get(announced.number)
            if announced.number > self.publisher.version and (failure is None or now >= failure.retry_at):
                return announced
        return None

    def _start(self, announced: Announced) -> None:
        """Load a version in a thread of its own. A daemon: a load that hangs must not keep the process from ending."""
        ahead = self.publisher.titles.newer_than(announced.version.position)
        future: Future[Recommender] = Future()

        def run() -> None:
            try:
                future.set_result(self.load(announced.version.path, ahead))
            except BaseException as error:
                future.set_exception(error)

        Thread(target=run, name="version-loader", daemon=True).start()
        began = self.clock()
        self._current = _Load(announced, ahead, future, began, began + self.timeout_s)

    def _abandon(self, hanging: _Load) -> None:
        self._current = None
        self._abandoned.append(hanging.future)
        if len(self._abandoned) >= MAX_ABANDONED_LOADS:
            log.error(
                "%d loads hang: no version is loaded until one ends, or publish is restarted.", MAX_ABANDONED_LOADS
            )
        if self._is_allowed(hanging.announced):
            self._skip(hanging.announced, TimeoutError(f"no end after {self.timeout_s:g} s"))
        else:
            self.held_back.append(hanging.announced)

    def _serve(self, loaded: _Load) -> None:
        number, version = loaded.announced
        added = {(title.title, title.stamp) for title in loaded.ahead}
        rest = [t for t in self.publisher.titles.newer_than(version.position) if (t.title, t.stamp) not in added]
        try:
            is_rollback = self.rollback is not None
            self.publisher.serve(number, loaded.future.result(), rest, version.position, is_rollback)
        except Exception as error:
            self._skip(loaded.announced, error)
            return
        self._failures = {n: failure for n, failure in self._failures.items() if n > number}
        enter(Phase.READY)
        log.info("Serving version %d, trained on %d events.", number, version.learned)
        newer = self._next()
        self._late_loads = 0 if newer is None else self._late_loads + 1
        if newer is not None and self._late_loads > 1:  # one version may always come during a load
            self._slow_load.warn(number, self.clock() - loaded.began, newer.number)

    def _skip(self, announced: Announced, error: Exception) -> None:
        """Count and report a version that could not be loaded; queue it again if the error may pass."""
        number, path = announced.number, announced.version.path
        attempts = self._failures[number].attempts + 1 if number in self._failures else 1
        if attempts == 1:
            VERSIONS_SKIPPED.inc()
        if isinstance(error, CheckpointError):
            log.warning("Skipping version %d. %s", number, error)
            return
        reason = f"Skipping version {number}: loading {path} failed ({type(error).__name__}: {error})."
        if isinstance(error, PERMANENT_ERRORS):
            log.warning("%s Correct the cause, and start publish again if no later version is served.", reason)
            return
        wait = min(FIRST_RETRY_S * 2 ** min(attempts - 1, 10), MAX_RETRY_S)
        log.warning("%s It is tried again in %.0f s unless a later version is served.", reason, wait)
        self._queue_again(announced)
        queued = {other.number for other in self.queue}
        self._failures = {n: failure for n, failure in self._failures.items() if n in queued}
        self._failures[number] = _Failure(attempts, self.clock() + wait)

    def _queue_again(self, announced: Announced) -> None:
        """Put a version back into its place in the queue."""
        queue = list(self.queue)
        index = len(queue)
        while index and queue[index - 1].number > announced.number:
            index -= 1
        queue.insert(index, announced)
        self.queue = deque(queue, MAX_QUEUED_VERSIONS)
