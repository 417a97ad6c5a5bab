"""The learner's checkpoints: written beside the learning, kept within a bound, announced once they are whole.

The state is copied when it is taken, so one thread can write it while the learner goes on; the next one waits for it.
Until a checkpoint is whole nothing is announced and no position is committed.
"""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from model import checkpoint
from model.checkpoint import CheckpointError
from streaming.records import Version
from streaming.timing import SNAPSHOT

log = logging.getLogger(__name__)


class Checkpoints:
    """Folders under `url`, named by micro-batch; the newest `keep` stay."""

    def __init__(self, url: str, keep: int = 4, identity: str = "") -> None:
        self.url, self.keep, self.identity = url.rstrip("/"), keep, identity
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
        created = int(time.time() * 1000)
        checkpoint.save(url, state, {**manifest, "log": self.identity, "created": created})
        self._rotate(url)
        return version(url, {**manifest, "created": created})

    def _rotate(self, newest: str) -> None:
        """Keep the newest. Those of later steps were passed over, damaged or of another format: they go first."""
        kept = sorted(checkpoint.present(self.url), key=lambda url: (url <= newest, url))
        for url in kept[: -self.keep]:
            checkpoint.remove(url)


def version(url: str, manifest: Mapping[str, Any]) -> Version:
    """A checkpoint as it is announced."""
    fields = {name: manifest[name] for name in ("step", "position", "learned", "mrr", "created")}
    return Version(path=url, **fields)
