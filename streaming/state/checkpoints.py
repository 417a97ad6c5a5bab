"""Writes the learner's checkpoints in the background, deletes old ones, and hands complete ones over for announcement.

A background thread writes a copy of the state while the learner continues; the next checkpoint waits for it. A version
is announced, and its log position committed, only after its checkpoint is complete.

The store keeps the newest few checkpoints, pinned ones (an operator rolled back to them), and one long-term checkpoint.
The long-term checkpoint is between one and two times `long_term_hours` old, for problems that are noticed a day later.
Its successor is kept as well: it becomes the next long-term checkpoint once it is old enough.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from model import checkpoint
from model.checkpoint import CheckpointError
from streaming.commit_metrics import SNAPSHOT_SECONDS
from streaming.records import Version

log = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoint folders under one URL, named by their micro-batch."""

    def __init__(
        self,
        url: str,
        keep: int = 4,
        log_identity: str = "",
        long_term_hours: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keeps the newest `keep` checkpoints and, unless `long_term_hours` is 0, a long-term one."""
        self.url, self.keep, self.log_identity = url.rstrip("/"), keep, log_identity
        self.long_term_hours, self.clock = long_term_hours, clock
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Version] | None = None

    def load_newest(self) -> tuple[dict[str, Any], dict[str, Any], str] | None:
        """State, manifest and URL of the newest complete checkpoint. Damaged ones are skipped with a log message."""
        for url in reversed(checkpoint.list_checkpoints(self.url)):
            try:
                return *checkpoint.load(url), url
            except CheckpointError as error:
                log.warning("%s The checkpoint before it is used; later records are learned again.", error)
        return None

    def write(self, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Start to write a checkpoint in the background. Call `take_finished` for the one before first."""
        assert self._writing is None, "call `take_finished` first"
        self._writing = self._writer.submit(self._write, state, manifest)

    @property
    def idle(self) -> bool:
        """Whether no checkpoint is being written."""
        return self._writing is None

    def take_finished(self, wait: bool = False) -> Version | None:
        """Return a checkpoint once, after it is complete. Raises any error of the write."""
        if self._writing is None or not (wait or self._writing.done()):
            return None
        version = self._writing.result()
        self._writing = None
        return version

    @SNAPSHOT_SECONDS.labels("checkpoint").time()
    def _write(self, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> Version:
        url = f"{self.url}/{manifest['step']:012d}"
        created = int(self.clock() * 1000)
        checkpoint.save(url, state, {**manifest, "log": self.log_identity, "created": created})
        self._delete_old(url, created)
        return version_record(url, {**manifest, "created": created})

    def _delete_old(self, newest: str, now: int) -> None:
        """Delete old checkpoints, first those of later steps than `newest`: they were skipped at the start."""
        order = sorted(checkpoint.list_checkpoints(self.url), key=lambda url: (url <= newest, url))
        old = [url for url in order[: -self.keep] if not checkpoint.is_pinned(url)]
        created = {url: at for url in old if (at := self._created(url)) is not None}
        kept = long_term_checkpoints(created, now, self.long_term_hours)
        incomplete = [url for url in checkpoint.partial_writes(self.url) if url < newest]
        for url in incomplete + [url for url in old if url not in kept]:
            if checkpoint.is_pinned(url):  # pinned since the list was made
                continue
            try:
                checkpoint.remove(url)
            except OSError as error:  # pinned or unpinned just now: it has no manifest, so the next call deletes it
                log.warning("The checkpoint at %s could not be deleted yet (%s).", url, error)

    def _created(self, url: str) -> int | None:
        """When a checkpoint of this log was written, ms. None for damaged ones and other logs: never long-term ones."""
        try:
            manifest = checkpoint.read_manifest(url)
        except CheckpointError:
            return None
        return int(manifest["created"]) if manifest.get("log") == self.log_identity else None


def long_term_checkpoints(created: Mapping[str, int], now: int, hours: float) -> list[str]:
    """The long-term checkpoint and its successor, of old checkpoints and their creation times (ms).

    They are the newest that is at least `hours` old and the oldest that is not.
    """
    due = now - hours * 3_600_000
    oldest_first = sorted(created, key=lambda url: (created[url], url)) if hours else []
    old = [url for url in oldest_first if created[url] <= due]
    return old[-1:] + oldest_first[len(old) : len(old) + 1]


def version_record(url: str, manifest: Mapping[str, Any]) -> Version:
    """The record that announces a checkpoint."""
    fields = {name: manifest[name] for name in ("step", "position", "learned", "mrr", "created")}
    return Version(path=url, **fields)
