"""Writes the learner's checkpoints in the background, deletes old ones, and hands complete ones over for announcement.

A background thread writes a copy of the state while the learner continues; the next checkpoint waits for it, but only
for a limited time. A failed or slow write does not stop the learner: it is logged and counted, and the next due
checkpoint is tried. A version is announced, and its log position committed, only after its checkpoint is complete.

The store keeps the newest few checkpoints, pinned ones (an operator rolled back to them), the last good one (the
learner may return to it), and older ones by age: for each period, one that is between one and two periods old, for
problems that are noticed later. Its successor is kept as well: it becomes the one of that age once it is old enough.

Rotation deletes only checkpoints of this format and this log, of no later step than the one just written, that this
process wrote or found at its start. So a stalled process that wakes deletes nothing of the process that replaced it,
and checkpoints of another release or log stay; those of logs that cannot return are deleted too. The same holds for
partial writes, which are deleted before each write. A process that was replaced (`streaming/kafka/ownership.py`) writes
and deletes nothing. The manifest contains its fencing number, beside the files that are compared byte for byte.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from typing import Any, Final

import msgspec
from prometheus_client import Counter

from model import checkpoint
from model.checkpoint import FORMAT, CheckpointError, CheckpointFormatError, CheckpointWriteError
from streaming.commit_metrics import SNAPSHOT_SECONDS
from streaming.errors import OwnedElsewhereError, OwnershipError
from streaming.kafka.ownership import SOLE_PROCESS, Owner
from streaming.records import SettingsChange, SkippedRange, Version
from streaming.state.background_write import start_write

SHORT_RETENTION_HOURS: Final = (1 / 6, 1.0)  # besides the long-term period of the settings
WRITE_TIMEOUT_S: Final = 60.0  # for which the learner waits for the previous checkpoint
FAILURES: Final = Counter(
    "premiere_checkpoint_failures_total", "Checkpoints that failed, or were skipped because the storage hangs."
)

log: Final = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoint folders under one URL, named by their micro-batch."""

    def __init__(
        self,
        url: str,
        keep: int = 4,
        log_identity: str = "",
        retention_hours: Sequence[float] = (),
        ended_logs: str = "",
        clock: Callable[[], float] = time.time,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        owner: Owner = SOLE_PROCESS,
    ) -> None:
        """Keeps the newest `keep` checkpoints, and one with its successor for each of the periods that is not 0.

        Logs whose identity starts with `ended_logs`, unless empty, cannot return.
        """
        self.url, self.keep, self.log_identity = url.rstrip("/"), keep, log_identity
        self.retention_hours, self.clock = [hours for hours in retention_hours if hours], clock
        self.ended_logs, self.write_timeout_s, self.owner = ended_logs, write_timeout_s, owner
        self._known = set(checkpoint.folders(self.url))  # found at the start, or written by this process
        self._writing: Future[Version] | None = None
        self._overdue = False  # whether the write in progress has exceeded the time limit
        self._behind = False  # whether the last state that was handed over could not be written

    def load_newest(self) -> tuple[dict[str, Any], dict[str, Any], str] | None:
        """State, manifest and URL of the newest complete checkpoint, if possible of this log.

        Damaged ones are skipped with a log message. Raises CheckpointFormatError if all have another format.
        """
        order: dict[str, tuple[bool, int]] = {}  # whether it is of this log, and its step
        other_logs: list[str] = []
        other_formats: dict[str, str] = {}
        for url in checkpoint.list_checkpoints(self.url):
            try:
                manifest = checkpoint.read_manifest(url)
                order[url] = manifest.get("log") == self.log_identity, manifest.get("step", -1)
                other_logs += [] if self._is_own(manifest) else [url]
            except CheckpointFormatError as error:
                other_formats[url] = str(error.found)
            except CheckpointError as error:
                log.warning("%s It is ignored and never deleted automatically.", error)
        self._report("another format", list(other_formats))
        self._report("another log", other_logs)
        for url in sorted(order, key=lambda url: (order[url], url), reverse=True):
            try:
                return *checkpoint.load(url), url
            except CheckpointError as error:
                log.warning("%s The checkpoint before it is used; later records are learned again.", error)
        if other_formats:
            raise self._format_error(other_formats)
        return None

    def _report(self, difference: str, urls: Sequence[str]) -> None:
        """Log the checkpoints that rotation never deletes, with their size."""
        if urls:
            log.warning(
                "%d checkpoints in %s are of %s and use %.1f MB: they are never deleted automatically, so delete them "
                "when they are no longer needed (%s).",
                len(urls), self.url, difference, _megabytes(urls), ", ".join(url.rsplit("/", 1)[-1] for url in urls),
            )  # fmt: skip

    def _format_error(self, formats: Mapping[str, str]) -> CheckpointFormatError:
        found = ", ".join(sorted(set(formats.values())))
        return CheckpointFormatError(
            f"All {len(formats)} readable checkpoints in {self.url} ({_megabytes(list(formats)):.1f} MB) have format "
            f"{found}, and this version reads format {FORMAT}: run the version that wrote them, or set "
            "PREMIERE_CHECKPOINTS to an empty folder to learn again from the start of the log.",
            found,
        )

    def find(self, step: int) -> Version | None:
        """The newest checkpoint of this log up to a step; None if there is none. Its parts may still be damaged."""
        found: dict[int, Version] = {}
        for url in checkpoint.list_checkpoints(self.url):
            try:
                manifest = checkpoint.read_manifest(url)
            except CheckpointError:
                continue
            if manifest.get("log") == self.log_identity and manifest["step"] <= step:
                found[manifest["step"]] = version_record(url, manifest)
        return found[max(found)] if found else None

    def write(self, state: Mapping[str, Any], manifest: Mapping[str, Any], last_good_step: int | None = None) -> None:
        """Start to write a checkpoint in the background. Call `take_finished` for the one before first.

        The one of `last_good_step` is kept. The checkpoint is skipped if the one before has exceeded the time limit and
        is still being written.
        """
        if self._overdue:
            self._report_failure(f"The checkpoint of step {manifest['step']} was skipped: the one before is unfinished")
            return
        assert self._writing is None, "call `take_finished` first"
        self._writing, self._behind = start_write(lambda: self._write(state, manifest, last_good_step)), False

    @property
    def idle(self) -> bool:
        """Whether the last state that was handed over is in a complete checkpoint."""
        return self._writing is None and not self._behind

    @property
    def has_failed(self) -> bool:
        """Whether the last state that was handed over could not be written, and another one can be."""
        return self._writing is None and self._behind

    def take_finished(self, wait: bool = False) -> Version | None:
        """Return a checkpoint once, after it is complete; `wait` waits for it up to the time limit, once.

        A failure of the storage is logged and counted. Other errors of the write are raised.
        """
        if self._writing is None:
            return None
        if wait and not self._overdue:
            futures.wait([self._writing], self.write_timeout_s)
            if not self._writing.done():
                self._overdue = True
                self._report_failure(f"A checkpoint in {self.url} is unfinished after {self.write_timeout_s:g} s")
        if not self._writing.done():
            return None
        finished, self._writing, self._overdue = self._writing, None, False
        try:
            return finished.result()
        except CheckpointWriteError as error:
            self._report_failure(str(error).removesuffix("."))
            return None

    def _report_failure(self, problem: str) -> None:
        self._behind = True
        FAILURES.inc()
        log.error("%s; the learner continues and tries again at the next due checkpoint.", problem)

    @SNAPSHOT_SECONDS.labels("checkpoint").time()
    def _write(self, state: Mapping[str, Any], manifest: Mapping[str, Any], last_good_step: int | None) -> Version:
        url, created = self._folder(manifest["step"]), int(self.clock() * 1000)
        manifest = {**manifest, "owner": self.owner.number, "created": created}
        self._check_owner()
        try:
            with checkpoint.storage_errors(url):
                self._delete_partial_writes(url)
                self._claim(url)
            checkpoint.save(url, state, {**manifest, "log": self.log_identity})
        finally:
            self._rotate(manifest["step"], created, last_good_step)
        return version_record(url, manifest)

    def _check_owner(self) -> None:
        """Raises OwnershipError if another process has taken over, or has written a checkpoint of this log."""
        self.owner.check()
        for url in checkpoint.list_checkpoints(self.url) if self.owner.number else ():
            try:
                manifest = checkpoint.read_manifest(url)
            except CheckpointError:
                continue
            if manifest.get("log") == self.log_identity and manifest.get("owner", 0) > self.owner.number:
                raise OwnedElsewhereError(f"A newer process of learn has written {url}: this one writes no more.")

    def _folder(self, step: int) -> str:
        return f"{self.url}/{step:012d}"

    def _claim(self, url: str) -> None:
        """Raises CheckpointWriteError if the folder belongs to another process, log or format."""
        problem = None
        try:
            if not self._is_own(checkpoint.read_manifest(url)):
                problem = "it holds a checkpoint of another log"
        except CheckpointFormatError as error:
            problem = f"it holds a checkpoint of format {error.found}"
        except CheckpointError:
            pass  # no checkpoint, or a damaged one
        if url not in self._known and url in checkpoint.folders(self.url):
            problem = "another process has created it"
        if problem:
            raise CheckpointWriteError(f"The checkpoint folder {url} cannot be used: {problem}.")
        self._known.add(url)

    def _delete_partial_writes(self, newest: str) -> None:
        """Delete the partial writes of earlier steps, which frees space for the next write."""
        partial = checkpoint.partial_writes(self.url)
        self._delete([url for url in partial if url in self._known and url <= newest])

    def _rotate(self, step: int, now: int, last_good_step: int | None) -> None:
        """Delete old checkpoints, up to this step. Errors of the storage are only logged: the next write repeats it."""
        try:
            self._check_owner()
            rotatable = self._rotatable(step)
            old = [url for url in sorted(rotatable)[: -self.keep] if not checkpoint.is_pinned(url)]
            created = {url: at for url in old if (at := rotatable[url]) is not None}
            kept = {url for hours in self.retention_hours for url in kept_by_age(created, now, hours)}
            if last_good_step is not None:
                kept.add(self._folder(last_good_step))
            self._delete([url for url in old if url not in kept])
        except OwnershipError:
            raise
        except Exception as error:  # object stores have error classes of their own
            log.warning("Old checkpoints in %s could not be listed (%s).", self.url, error)

    def _rotatable(self, step: int) -> dict[str, int | None]:
        """The checkpoints that rotation may delete; their creation times (ms), None for those of other logs."""
        created: dict[str, int | None] = {}
        for url in checkpoint.list_checkpoints(self.url):
            try:
                manifest = checkpoint.read_manifest(url)
            except CheckpointError:
                continue
            written_as = manifest.get("step", -1)
            if url in self._known and self._is_own(manifest) and written_as <= step and url == self._folder(written_as):
                created[url] = int(manifest["created"]) if manifest["log"] == self.log_identity else None
        return created

    def _is_own(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a checkpoint is of this log, or of one that cannot return."""
        written_for = str(manifest.get("log"))
        return written_for == self.log_identity or bool(self.ended_logs and written_for.startswith(self.ended_logs))

    def _delete(self, urls: Sequence[str]) -> None:
        for url in urls:
            if checkpoint.is_pinned(url):  # pinned since the list was made
                continue
            self.owner.check()
            try:
                checkpoint.remove(url)
                self._known.discard(url)
            except Exception as error:  # pinned or unpinned just now: it has no manifest, so the next write deletes it
                log.warning("The checkpoint at %s could not be deleted yet (%s).", url, error)


def kept_by_age(created: Mapping[str, int], now: int, hours: float) -> list[str]:
    """The checkpoints to keep for one period, of old checkpoints and their creation times (ms).

    They are the newest that is at least `hours` old and the oldest that is not, its successor.
    """
    due = now - hours * 3_600_000
    oldest_first = sorted(created, key=lambda url: (created[url], url))
    old = [url for url in oldest_first if created[url] <= due]
    return old[-1:] + oldest_first[len(old) : len(old) + 1]


def version_record(url: str, manifest: Mapping[str, Any]) -> Version:
    """The record that announces a checkpoint."""
    fields = {name: manifest[name] for name in ("step", "position", "learned", "mrr", "created")}
    skipped = msgspec.convert(manifest.get("skipped", []), list[SkippedRange])
    settings = msgspec.convert(manifest.get("settings_changes", []), list[SettingsChange])
    return Version(path=url, skipped=skipped, settings=settings, **fields)


def _megabytes(urls: Sequence[str]) -> float:
    return sum(checkpoint.size(url) for url in urls) / 1e6
