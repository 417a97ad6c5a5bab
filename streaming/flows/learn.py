"""Flow `learn`: trains the model on the learner log, evaluates it prequentially and announces model versions.

The flow has no recovery store. A checkpoint is its commit, and the source starts at the position of the newest one.
The same code catches up with a backlog and trains a new deployment on an existing log.

A version is announced only if it passed the gate. If the gate finds that the versions in service have become worse, the
flow announces the last good one again. If it demands a return, the flow loads the last good checkpoint and reads the
log again from there, which stops it for that long. After a crash in between, the restart comes to the same decision.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
import torch
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from model import checkpoint
from model.checkpoint import CheckpointError
from model.signals.table import SIGNALS
from streaming.errors import StreamError
from streaming.flows import learner_metrics as metrics
from streaming.heartbeat import beat
from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.rate_limited_warning import RateLimitedWarning
from streaming.records import Version, to_json
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner
from streaming.state.model_versions import automatic_rollback
from streaming.state.settings_history import all_values
from streaming.state.version_gate import GoodPoint, Verdict
from streaming.topics import MODEL_VERSIONS

SINGLE_WRITER: Final = "0"  # key of the versions: one writer keeps their order
REPORT_INTERVAL_S: Final = 0.5  # between two reports of all metrics, because the recent means cost time
SLOW_BATCH: Final = (
    "Learning %d events took %.1f s, longer than learner.linger_ms (%.1f s): with %d titles, learning cannot keep up "
    "even with a slow stream (docs/operations.md, Limits)."
)
RETRY_INTERVAL_S: Final = 5.0  # between a failed checkpoint and the next try, if none is due before

Reread = Callable[[int, int], Iterable[Message]]  # the messages of `activity` in the offsets [start, stop)

log: Final = logging.getLogger(__name__)


def build(
    *,
    activity: Source[list[Message]],
    versions: Sink[tuple[str, list[Outgoing]]],
    learner: LogLearner,
    checkpoints: CheckpointStore,
    commit_position: CommitPosition,
    reread: Reread,
    unannounced: Version | None = None,
    report_interval_s: float = REPORT_INTERVAL_S,
    stop: threading.Event | None = None,
) -> Dataflow:
    """The flow.

    - commit_position: advances with each complete checkpoint; `activity` commits it to the consumer group
    - reread: reads `activity` again after a return; raises StreamError at the call if the log begins behind `start`
    - unannounced: a record that an earlier process did not announce
    - stop: once set, nothing more is learned
    """
    stop = stop or threading.Event()
    step = _Step(learner, checkpoints, commit_position, reread, unannounced, report_interval_s, stop)
    flow = Dataflow("learn")
    polls = op.input("activity", flow, activity)  # [Message]
    announced = op.flat_map("announced", polls, step)  # ("0", [Outgoing])
    op.output("model_versions", announced, versions)
    return flow


class _Step:
    """Feeds polls to the learner, and announces a version once its checkpoint is complete."""

    def __init__(
        self,
        learner: LogLearner,
        checkpoints: CheckpointStore,
        commit_position: CommitPosition,
        reread: Reread,
        unannounced: Version | None,
        report_interval_s: float,
        stop: threading.Event,
    ) -> None:
        self.learner, self.checkpoints, self.commit_position = learner, checkpoints, commit_position
        self.reread, self.stop = reread, stop
        self.ready = [] if unannounced is None else [unannounced]  # versions to announce
        self.metrics = metrics.LearnerMetrics(learner)
        self.report_interval_s, self.reported_at = report_interval_s, float("-inf")
        self.written_at = float("-inf")  # monotonic seconds, of the last checkpoint that was begun
        self.slow_batch = RateLimitedWarning(log, SLOW_BATCH)
        self.passed: set[int] = set()  # steps that passed the gate and whose checkpoint is not complete yet

    def __call__(self, poll: list[Message]) -> list[tuple[str, list[Outgoing]]]:
        """Learn from a poll, and return the versions to announce."""
        for message in poll:
            if self.stop.is_set():  # the next start reads the rest again
                break
            if self._feed(message):
                self._on_check(self.learner.verdict)
        self._collect(wait=False)
        if self.checkpoints.has_failed and time.monotonic() - self.written_at >= RETRY_INTERVAL_S:
            self._write_checkpoint()
        if self.checkpoints.idle and not self.learner.has_unsaved_records:
            self.commit_position.advance(0, self.learner.position)  # only ticks since: a restart misses nothing
        self.metrics.report_learned()  # at each poll, because `premiere produce` limits its pace by it
        if time.monotonic() - self.reported_at >= self.report_interval_s:
            self.metrics.report()
            self.reported_at = time.monotonic()
        owner = self.checkpoints.owner.number
        ready, self.ready = [msgspec.structs.replace(version, owner=owner) for version in self.ready], []
        return [(SINGLE_WRITER, [Outgoing(MODEL_VERSIONS, None, to_json(version))]) for version in ready]

    def _feed(self, message: Message) -> bool:
        """Feed a message to the learner, and warn if a micro-batch was slow. Returns whether a checkpoint is due."""
        learner, began, batches, learned = self.learner, time.monotonic(), self.learner.batches, self.learner.learned
        is_due, linger_s = learner.feed(message), learner.settings.linger_ms / 1000
        took_s, events = time.monotonic() - began, learner.learned - learned
        is_full = events >= learner.batch_events
        if learner.batches == batches + 1 and took_s > linger_s and events and not is_full:
            self.slow_batch.warn(events, took_s, linger_s, len(learner.learner.stream_state.catalog))
        return is_due

    def _collect(self, wait: bool) -> None:
        version = self.checkpoints.take_finished(wait)
        if version is not None:
            log.info("Step %d is written after %d events: %s.", version.step, version.learned, version.path)
            self.commit_position.advance(0, version.position)
            if version.step in self.passed:
                self.ready.append(version)
            self.passed = {step for step in self.passed if step > version.step}
            metrics.CHECKPOINT_STEP.set(version.step)

    def _on_check(self, verdict: Verdict) -> None:
        """Write the checkpoint that is due, or return to an earlier one."""
        if verdict.passed:
            self.passed.add(self.learner.batches)
        else:
            metrics.GATE_FAILURES.inc()
            log.warning("Step %d is not announced: %s.", self.learner.batches, ", ".join(verdict.problems))
        if verdict.rollback_to is not None:
            self._roll_back(verdict.rollback_to)
        if verdict.return_to is None or not self._return(verdict.return_to):
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        self._collect(wait=True)
        self.written_at, last_good = time.monotonic(), self.learner.gate.last_good
        self.checkpoints.write(
            self.learner.state_dict(), self._manifest(), None if last_good is None else last_good.step
        )

    def _roll_back(self, point: GoodPoint) -> None:
        """Announce the last good version again; the next version that passes ends the rollback."""
        self._collect(wait=True)  # the last good one may be the one that is being written
        self.ready = [version for version in self.ready if version.step <= point.step]
        self.passed = {step for step in self.passed if step <= point.step}
        found = self.checkpoints.find(point.step)
        if found is None:
            log.error("There is no checkpoint up to step %d to roll back to.", point.step)
            return
        metrics.GATE_ROLLBACKS.inc()
        log.error("The versions in service have become worse: rolling back to step %d.", found.step)
        self.ready.append(automatic_rollback(found))

    def _return(self, point: GoodPoint) -> bool:
        """Continue from the last good checkpoint. Returns False if no checkpoint is left that could be used."""
        self._collect(wait=True)
        learner, end, fed = self.learner, self.learner.position, self.learner.next_offset
        found = self.checkpoints.find(point.step)
        if found is None:
            log.error("There is no checkpoint up to step %d to return to: the learner continues.", point.step)
            return False
        try:
            messages = self.reread(found.position, fed)
            learner.return_to(checkpoint.load(found.path)[0])
        except (CheckpointError, StreamError) as error:
            log.error("%s The learner continues without a return.", error)
            return False
        metrics.GATE_RETURNS.inc()
        log.error("Returning to step %d: offsets %d to %d are read without training.", found.step, found.position, end)
        for message in messages:
            if self.stop.is_set():  # nothing is saved: the next start comes to the same decision
                return True
            beat()
            learner.feed(message)
        self._write_checkpoint()
        return True

    def _manifest(self) -> dict[str, Any]:
        learner = self.learner
        mrr = learner.evaluation.rankings["full"].recent()["mrr"]["all"]
        return {
            "step": learner.batches,
            "position": learner.position,
            "learned": learner.learned,
            "mrr": mrr,
            "passed": learner.batches in self.passed,
            "skipped": msgspec.to_builtins(learner.skipped),
            "settings": all_values(learner.learner.settings, learner.settings),
            "settings_changes": msgspec.to_builtins(learner.settings_changes),
            "signals": list(SIGNALS),
            "environment": numeric_environment(),
        }


def numeric_environment() -> dict[str, str | int]:
    """The environment that determines the last bits of the weights, besides the learner log and the settings."""
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads()}
