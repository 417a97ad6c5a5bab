"""Loads announced model versions in a background thread for the flow `publish`, and applies rollbacks."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge

from model.checkpoint import CheckpointError
from model.recommender import Recommender
from streaming.records import Title, Version
from streaming.state.publisher import Publisher

LOADING_CHECK_INTERVAL_S: Final = 0.02  # between two checks whether a version has been loaded
MAX_QUEUED_VERSIONS: Final = 16  # how many older versions are tried if newer ones cannot be loaded

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


class VersionLoader:
    """Loads announced versions in a background thread, and gives them to the publisher.

    The newest version is loaded first. If it cannot be loaded, the next older one is tried, unless that one is older
    than the version in use. What an announcement does depends on its cause:

    - "learned": queued; held back while a rollback is active
    - "rollback": becomes the active rollback. It is queued; queued versions that are later than its model are held back
    - "rollforward": ends the rollback. It and the held-back versions are queued
    """

    def __init__(self, publisher: Publisher, load: LoadVersion, announced: Iterable[Announced]) -> None:
        self.publisher, self.load = publisher, load
        self.rollback: Announced | None = None  # the active one
        self.queue: deque[Announced] = deque(maxlen=MAX_QUEUED_VERSIONS)  # to load, oldest first
        self.held_back: deque[Announced] = deque(maxlen=MAX_QUEUED_VERSIONS)  # until the rollback ends
        self.add(announced)  # the whole history, because the active rollback may be long ago
        self.thread = ThreadPoolExecutor(1, "version-loader")
        self._current: tuple[Announced, list[Title], Future[Recommender]] | None = None  # being loaded

    @property
    def loading(self) -> bool:
        """Whether a version is being loaded or queued."""
        return self._current is not None or bool(self.queue)

    def add(self, announced: Iterable[Announced]) -> None:
        """Apply new announcements, in their order."""
        for announcement in announced:
            cause = announcement.version.cause
            if cause == "learned" and self.rollback is not None:
                self.held_back.append(announcement)
                continue
            if cause == "rollback":
                self.rollback = announcement
                self.held_back.extend(other for other in self.queue if not self._is_allowed(other))
                self.queue = deque((other for other in self.queue if self._is_allowed(other)), MAX_QUEUED_VERSIONS)
            elif cause == "rollforward":
                self.rollback = None
                self.queue.extend(self.held_back)
                self.held_back.clear()
            self.queue.append(announcement)
        ROLLBACK_VERSION.set(-1 if self.rollback is None else self.rollback.number)

    def wait(self) -> None:
        """Wait for the version that is being loaded, for at most one check interval."""
        if self._current is not None:
            futures.wait([self._current[2]], LOADING_CHECK_INTERVAL_S)

    def step(self) -> None:
        """Serve the version that has been loaded, and start to load the next."""
        if self._current is not None and self._current[2].done():
            announced, ahead, future = self._current
            self._current = None
            if self._is_allowed(announced):
                self._serve(announced, ahead, future)
        while self._current is None and self.queue:
            newest = self.queue.pop()
            if newest.number > self.publisher.version:
                ahead = self.publisher.titles.newer_than(newest.version.position)
                self._current = newest, ahead, self.thread.submit(self.load, newest.version.path, ahead)

    def _is_allowed(self, announced: Announced) -> bool:
        """Whether the active rollback permits a version.

        Versions before the rolled-back-to model are permitted: they replace it if it cannot be loaded.
        """
        rollback = self.rollback
        return rollback is None or announced.number == rollback.number or announced.version.step < rollback.version.step

    def _serve(self, announced: Announced, ahead: Sequence[Title], future: "Future[Recommender]") -> None:
        number, version = announced
        try:
            recommender = future.result()
        except CheckpointError as error:
            VERSIONS_SKIPPED.inc()
            log.warning("Skipping version %d. %s", number, error)
            return
        added = {(title.title, title.stamp) for title in ahead}
        rest = [t for t in self.publisher.titles.newer_than(version.position) if (t.title, t.stamp) not in added]
        self.publisher.serve(number, recommender, rest)
        log.info("Serving version %d, trained on %d events", number, version.learned)
