"""The flow `learn`: the log in, versions out. Each new event is ranked first, then learned from.

It has no recovery store: the checkpoint is the commit, and the source begins where the newest one stands. Far behind,
it catches up through the same code, which is also how a new deployment starts from an existing log.
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
from prometheus_client import Gauge

from model.metrics.ranking import MEASURES, SLICES
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import Version, to_json
from streaming.state.checkpoints import Checkpoints
from streaming.state.log_learner import LogLearner
from streaming.topics import MODEL_VERSIONS

KEY: Final = "0"  # of the only writer of versions
REPORT: Final = 0.5  # seconds between two full reports: they sum over the recent window

LEARNED: Final = Gauge("premiere_learned_events", "new events taken from the log, each once")
POSITION: Final = Gauge("premiere_learner_position", "next offset of the log that is not in the weights")
DUPLICATES: Final = Gauge("premiere_learner_duplicates", "events left out because they had been learned")
UNLAUNCHED: Final = Gauge("premiere_learner_unlaunched", "events whose title was no candidate: rank infinity")
REPLAY: Final = Gauge(
    "premiere_learner_replay", "share of the usual replay; below 1 the log is faster than the capacity"
)
RANKED: Final = Gauge(
    "premiere_learner_ranked", "share of the events that are ranked before they are learned; below 1 as above"
)
RATE: Final = Gauge("premiere_learner_events_per_second", "new events a second of log time")
LOSS: Final = Gauge("premiere_learner_loss", "loss of the last micro-batch, nats", ["part"])
SUM: Final = Gauge("premiere_prequential_sum", "sum of a measure over scored events", ["ranking", "measure", "slice"])
SCORED: Final = Gauge("premiere_prequential_scored", "events scored", ["slice"])
RECENT: Final = Gauge("premiere_prequential_recent_mrr", "MRR over the recent window", ["ranking", "slice"])
GONE: Final = Gauge("premiere_learner_gone", "records that retention cut from the log before they were learned")
STEP: Final = Gauge("premiere_checkpoint_step", "training step of the newest whole checkpoint")


def build(
    *,
    activity: Source[list[Message]],
    versions: Sink[tuple[str, list[Outgoing]]],
    learner: LogLearner,
    checkpoints: Checkpoints,
    durable: dict[int, int],
    unannounced: Version | None = None,
    every: float = REPORT,
    stop: threading.Event | None = None,
) -> Dataflow:
    """The flow, which learns nothing more once `stop` is set. `durable` is told the position of each whole checkpoint,
    which the source commits for others to see; `unannounced` is a checkpoint that was written and never announced;
    `every` so many seconds the metrics are set."""
    step = _Step(learner, checkpoints, durable, unannounced, every, stop or threading.Event())
    flow = Dataflow("learn")
    polls = op.input("activity", flow, activity)  # [Message]
    announced = op.flat_map("learned", polls, step)  # ("0", [Outgoing])
    op.output("model_versions", announced, versions)
    return flow


class _Step:
    """Feeds polls to the learner, and hands on versions as their checkpoints become whole."""

    def __init__(
        self,
        learner: LogLearner,
        checkpoints: Checkpoints,
        durable: dict[int, int],
        unannounced: Version | None,
        every: float,
        stop: threading.Event,
    ) -> None:
        self.stop = stop
        self.learner, self.checkpoints, self.durable = learner, checkpoints, durable
        self.ready = [] if unannounced is None else [unannounced]
        self.every, self.reported = every, float("-inf")

    def __call__(self, poll: list[Message]) -> list[tuple[str, list[Outgoing]]]:
        """Learn from a poll; versions that are ready to be announced."""
        for message in poll:
            if self.stop.is_set():  # what was not learned will be read again
                break
            if self.learner.feed(message):
                self._collect(wait=True)
                self.checkpoints.write(self.learner.state_dict(), self._manifest())
        self._collect(wait=False)
        if self.checkpoints.idle and not self.learner.unsaved:
            self.durable[0] = self.learner.position  # only ticks came since: a restart misses nothing
        LEARNED.set(self.learner.learned)  # who holds events back asks for it all the time
        if time.monotonic() - self.reported >= self.every:
            report(self.learner)
            self.reported = time.monotonic()
        ready, self.ready = self.ready, []
        return [(KEY, [Outgoing(MODEL_VERSIONS, None, to_json(version))]) for version in ready]

    def _collect(self, wait: bool) -> None:
        version = self.checkpoints.finished(wait)
        if version is not None:
            self.durable[0] = version.position
            self.ready.append(version)
            STEP.set(version.step)

    def _manifest(self) -> dict[str, Any]:
        learner = self.learner
        mrr = learner.rankings["full"].recent()["mrr"]["all"]
        return {
            "step": learner.batches,
            "position": learner.position,
            "learned": learner.learned,
            "mrr": mrr,
            "settings": asdict(learner.learner.settings),
            "made": numerics(),
        }


def numerics() -> dict[str, str | int]:
    """What else than the log decides the last bits of what is learned from it."""
    return {"torch": str(torch.__version__), "threads": torch.get_num_threads()}


def report(learner: LogLearner) -> None:
    """Set the metrics."""
    POSITION.set(learner.position)
    DUPLICATES.set(learner.duplicates)
    UNLAUNCHED.set(learner.unlaunched)
    REPLAY.set(learner.replay)
    RANKED.set(learner.ranked)
    RATE.set(learner.rate())
    for part, loss in learner.losses.items():
        LOSS.labels(part).set(loss)
    for name, ranking in learner.rankings.items():
        total, recent = ranking.sums(), ranking.recent()["mrr"]
        for m, measure in enumerate(MEASURES):
            for s, place in enumerate(SLICES):
                SUM.labels(name, measure, place).set(total[m, s])
        for place in SLICES:
            value = recent[place]
            RECENT.labels(name, place).set(float("nan") if value is None else value)
    for place, count in learner.rankings["full"].scored().items():
        SCORED.labels(place).set(count)
