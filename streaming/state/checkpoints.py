"""The learner's checkpoints: written beside the learning, kept within a bound, announced once they are whole.

The state is copied when it is taken, so one thread can write it while the learner goes on; the next one waits for it.
Until a checkpoint is whole nothing is announced and no position is committed.

Which stay: the newest few; what is pinned, because somebody rolled back to it; and an anchor, one that is between one
and two `anchor` hours old, to go back to when it takes a day to notice that something went wrong. Beside the anchor
stays its successor, for else nothing would be there to grow old.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from model import checkpoint
from model.checkpoint import CheckpointError
from streaming.commit_metrics import SNAPSHOT
from streaming.records import Version

log = logging.getLogger(__name__)


class Checkpoints:
    """Folders under `url`, named by micro-batch; the newest `keep` stay, pinned ones, and an anchor every `anchor`
    hours (0: none). `identity` is the log's."""

    def __init__(
        self,
        url: str,
        keep: int = 4,
        identity: str = "",
        anchor: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url, self.keep, self.identity = url.rstrip("/"), keep, identity
        self.anchor, self.clock = anchor, clock
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[Version] | None = None

    def newest(self) -> tuple[dict[str, Any], dict[str, Any], str] | None:
        """(state, manifest, url) of the newest whole checkpoint; damaged ones are passed over, with a word in the
        log."""
        for url in reversed(checkpoint.present(self.url)):
            try:
                return *checkpoint.load(url), url
            except CheckpointError as error:
                log.warning("%s The one before it is used; what came after is learned again.", error)
        return None

    def write(self, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Begin to write; waits for the one before."""
        assert self._writing is None, "take `finished` first"
        self._writing = self._writer.submit(self._write, state, manifest)

    @property
    def idle(self) -> bool:
        """Whether none is being written."""
        return self._writing is None

    def finished(self, wait: bool = False) -> Version | None:
        """The checkpoint that has become whole, once. Raises what went wrong in writing it."""
        if self._writing is None or not (wait or self._writing.done()):
            return None
        version = self._writing.result()
        self._writing = None
        return version

    @SNAPSHOT.labels("checkpoint").time()
    def _write(self, state: Mapping[str, Any], manifest: Mapping[str, Any]) -> Version:
        url = f"{self.url}/{manifest['step']:012d}"
        created = int(self.clock() * 1000)
        checkpoint.save(url, state, {**manifest, "log": self.identity, "created": created})
        self._rotate(url, created)
        return version(url, {**manifest, "created": created})

    def _rotate(self, newest: str, now: int) -> None:
        """Keep the newest. Those of later steps were passed over, damaged or of another format: they go first."""
        order = sorted(checkpoint.present(self.url), key=lambda url: (url <= newest, url))
        rest = [url for url in order[: -self.keep] if not checkpoint.pinned(url)]
        kept = anchors({url: at for url in rest if (at := self._created(url)) is not None}, now, self.anchor)
        torn = [url for url in checkpoint.torn(self.url) if url < newest]
        for url in torn + [url for url in rest if url not in kept]:
            if checkpoint.pinned(url):  # since we looked
                continue
            try:
                checkpoint.remove(url)
            except OSError as error:  # a pin came or went just now: without its manifest it goes with the next rotation
                log.warning("The checkpoint at %s is not removed yet (%s).", url, error)

    def _created(self, url: str) -> int | None:
        """When a checkpoint of this log was written, ms; None of others and damaged ones: they anchor nothing."""
        try:
            manifest = checkpoint.read_manifest(url)
        except CheckpointError:
            return None
        return int(manifest["created"]) if manifest.get("log") == self.identity else None


def anchors(created: Mapping[str, int], now: int, hours: float) -> list[str]:
    """Of old checkpoints and their times (ms) the anchor, and the one that will be: the newest that is `hours` old, and
    the oldest that is not yet."""
    due = now - hours * 3_600_000
    oldest_first = sorted(created, key=lambda url: (created[url], url)) if hours else []
    old = [url for url in oldest_first if created[url] <= due]
    return old[-1:] + oldest_first[len(old) : len(old) + 1]


def version(url: str, manifest: Mapping[str, Any]) -> Version:
    """A checkpoint as it is announced."""
    fields = {name: manifest[name] for name in ("step", "position", "learned", "mrr", "created")}
    return Version(path=url, **fields)
