"""Flow `learn`: trains the model on the learner log, evaluates it prequentially and announces model versions.

The flow has no recovery store. A checkpoint is its commit, and the source starts at the position of the newest one.
The same code catches up with a backlog and trains a new deployment on an existing log.
"""

import threading
import time
from dataclasses import asdict
from typing import Any, Final

import torch
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink
from prometheus_client import Counter, Gauge

from model.metrics.ranking import RANKING_METRICS, SLICES
from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import Version, to_json
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner
from streaming.topics import MODEL_VERSIONS

SINGLE_WRITER: Final = "0"  # key of the versions: one writer keeps their order
REPORT_INTERVAL_S: Final = 0.5  # between two reports of all metrics, because the recent means cost time

LEARNED_EVENTS: Final = Counter("premiere_learned_events_total", "Events learned, without duplicates.")
POSITION: Final = Gauge("premiere_learner_position", "Next offset of the learner log that the weights do not include.")
DUPLICATES: Final = Counter(
    "premiere_learner_duplicates_total", "Duplicate events in the learner log, which are not learned again."
)
UNKNOWN_TITLE_EVENTS: Final = Counter(
    "premiere_learner_unknown_title_events_total",
    "Events whose title was not a candidate; they score rank infinity.",
)
WAITING_TITLE_EVENTS: Final = Counter(
    "premiere_learner_waiting_title_events_total", "Events on titles that waited for their launch; none is learned."
)
WAITING_TITLES: Final = Gauge(
    "premiere_learner_waiting_titles", "Unlaunched titles that wait for their launch or for events of enough users."
)
TITLE_EVICTIONS: Final = Counter("premiere_learner_title_evictions_total", "Titles evicted at the catalog limit.")
SKIPPED_STEPS: Final = Counter(
    "premiere_learner_skipped_steps_total", "Training steps skipped because of a non-finite or huge gradient.", ["part"]
)
REPLAY_RATIO: Final = Gauge(
    "premiere_learner_replay_ratio", "Experience replay relative to its normal amount; below 1 while shedding load."
)
EVAL_SAMPLE_RATIO: Final = Gauge(
    "premiere_learner_eval_sample_ratio", "Fraction of the events that are evaluated; below 1 while shedding load."
)
EVENT_RATE: Final = Gauge("premiere_learner_events_per_second", "Events learned per second of log time.")
LOSS: Final = Gauge("premiere_learner_loss", "Loss of the last micro-batch, in nats.", ["part"])
PREQUENTIAL_SUM: Final = Counter(
    "premiere_prequential_sum_total", "Sum of a ranking metric over the scored events.", ["variant", "metric", "slice"]
)
PREQUENTIAL_SCORED: Final = Counter("premiere_prequential_scored_total", "Events scored by slice.", ["slice"])
RECENT_MRR: Final = Gauge(
    "premiere_prequential_recent_mrr", "MRR over the most recent scored events.", ["variant", "slice"]
)
LOST_RECORDS: Final = Counter(
    "premiere_learner_lost_records_total", "Log records that retention deleted before they were learned."
)
CHECKPOINT_STEP: Final = Gauge("premiere_checkpoint_step", "Micro-batches learned by the newest complete checkpoint.")


def build(
    *,
    activity: Source[list[Message]],
    versions: Sink[tuple[str, list[Outgoing]]],
    learner: LogLearner,
    checkpoints: CheckpointStore,
    commit_position: CommitPosition,
    unannounced: Version | None = None,
    report_interval_s: float = REPORT_INTERVAL_S,
    stop: threading.Event | None = None,
) -> Dataflow:
    """The flow.

    - commit_position: advances with each complete checkpoint; `activity` commits it to the consumer group
    - unannounced: a checkpoint that an earlier process wrote but did not announce
    - stop: once set, nothing more is learned
    """
    step = _Step(learner, checkpoints, commit_position, unannounced, report_interval_s, stop or threading.Event())
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
        unannounced: Version | None,
        report_interval_s: float,
        stop: threading.Event,
    ) -> None:
        self.learner, self.checkpoints, self.commit_position = learner, checkpoints, commit_position
        self.stop = stop
        self.ready = [] if unannounced is None else [unannounced]  # versions to announce
        self.metrics = LearnerMetrics(learner)
        self.report_interval_s, self.reported_at = report_interval_s, float("-inf")

    def __call__(self, poll: list[Message]) -> list[tuple[str, list[Outgoing]]]:
        """Learn from a poll, and return the versions to announce."""
        for message in poll:
            if self.stop.is_set():  # the next start reads the rest again
                break
            if self.learner.feed(message):
                self._collect(wait=True)
                self.checkpoints.write(self.learner.state_dict(), self._manifest())
        self._collect(wait=False)
        if self.checkpoints.idle and not self.learner.has_unsaved_records:
            self.commit_position.advance(0, self.learner.position)  # only ticks since: a restart misses nothing
        self.metrics.report_learned()  # at each poll, because `premiere produce` limits its pace by it
        if time.monotonic() - self.reported_at >= self.report_interval_s:
            self.metrics.report()
            self.reported_at = time.monotonic()
        ready, self.ready = self.ready, []
        return [(SINGLE_WRITER, [Outgoing(MODEL_VERSIONS, None, to_json(version))]) for version in ready]

    def _collect(self, wait: bool) -> None:
        version = self.checkpoints.take_finished(wait)
        if version is not None:
            self.commit_position.advance(0, version.position)
            self.ready.append(version)
            CHECKPOINT_STEP.set(version.step)

    def _manifest(self) -> dict[str, Any]:
        learner = self.learner
        mrr = learner.rankings["full"].recent()["mrr"]["all"]
        return {
            "step": learner.batches,
            "position": learner.position,
            "learned": learner.learned,
            "mrr": mrr,
            "settings": asdict(learner.learner.settings),
            "environment": numeric_environment(),
        }


def numeric_environment() -> dict[str, str | int]:
    """The environment that determines the last bits of the weights, besides the learner log and the settings."""
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads()}


class LearnerMetrics:
    """Exports a learner's totals as Prometheus counters, and its state as gauges.

    The learner keeps its totals in the checkpoint, and a counter only accepts increments. Each report therefore adds
    the difference to the last reported total. After a restart the first report adds the whole restored total, so the
    counter's value is the total over all restarts. Prometheus sees a restart as a counter reset: `increase()` over it
    counts the restored total once more.
    """

    def __init__(self, learner: LogLearner) -> None:
        self.learner = learner
        self._reported: dict[Counter, float] = {}

    def report_learned(self) -> None:
        """Report the number of learned events alone, which is cheap."""
        self._set_total(LEARNED_EVENTS, self.learner.learned)

    def report(self) -> None:
        """Report everything."""
        learner = self.learner
        self.report_learned()
        self._set_total(DUPLICATES, learner.duplicates)
        self._report_model()
        POSITION.set(learner.position)
        REPLAY_RATIO.set(learner.replay_ratio)
        EVAL_SAMPLE_RATIO.set(learner.eval_ratio)
        EVENT_RATE.set(learner.events_per_second())
        for part, loss in learner.losses.items():
            LOSS.labels(part).set(loss)
        for variant, ranking in learner.rankings.items():
            total, recent = ranking.sums(), ranking.recent()["mrr"]
            for m, metric in enumerate(RANKING_METRICS):
                for s, name in enumerate(SLICES):
                    self._set_total(PREQUENTIAL_SUM.labels(variant, metric, name), float(total[m, s]))
            for name in SLICES:
                value = recent[name]
                RECENT_MRR.labels(variant, name).set(float("nan") if value is None else value)
        for name, count in learner.rankings["full"].scored().items():
            self._set_total(PREQUENTIAL_SCORED.labels(name), count)

    def _report_model(self) -> None:
        """Report the counts that the model keeps itself."""
        stream_state, pipeline = self.learner.learner.stream_state, self.learner.learner.pipelines["full"]
        self._set_total(UNKNOWN_TITLE_EVENTS, self.learner.unknown_title_events)
        self._set_total(WAITING_TITLE_EVENTS, stream_state.waiting_title_events)
        self._set_total(TITLE_EVICTIONS, stream_state.evicted_titles)
        WAITING_TITLES.set(len(stream_state.admission))
        self._set_total(SKIPPED_STEPS.labels("ranker"), pipeline.ranker.skipped_steps)
        if pipeline.sequence is not None:
            self._set_total(SKIPPED_STEPS.labels("backbone"), pipeline.sequence.optimizers.dense.skipped)

    def _set_total(self, counter: Counter, total: float) -> None:
        if (increase := total - self._reported.get(counter, 0.0)) > 0:
            counter.inc(increase)
            self._reported[counter] = total
