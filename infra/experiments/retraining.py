"""Learning online against retraining: the same system, made anew from all that happened so far every EVERY events.

Between two retrainings the rival's weights stand still. Three contenders meet the same stream:

- `online` learns from every micro-batch.
- `retrained` has the same memory: counters, histories and catalogue run on, only its weights stand still.
- `retrained, counters too` reads a copy of the counters as they were at the last retraining. Titles and their launches
  run on, and so does the history of the user who asks: both come with the question.

A retraining is a new network and a new ranker. The network takes E epochs over the windows of all histories so far,
shuffled, in steps of WINDOWS; E is the best of EPOCHS, tried again whenever the events have doubled: trained on the
older nine tenths of them, asked about the newest tenth. The ranker takes as many passes over its records as the online
one does. Its records are those that the rival itself noted while it served, so that the backbone's column in each comes
from a network which had not met the event: the simplest honest construction, and what a log of served features is for.
Records from before the first network are left out.

Costs are floating-point operations of training, ranker included, counted while they happen on one step of COUNTED, for
both ways alike. The search for E is the rival's for free, and so is the ranking that its records cost.
"""

import copy
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import DataSet
from infra.experiments.batch_retraining import Cost, Histories, asked_alone, fitted, pieces, refit
from infra.experiments.harness import Batch, Instrumented, Recorded, Say, stream, watched
from model.learner import Learner, LearnerSettings
from model.metrics.baselines import Baselines
from model.pipeline import RankingRequest, RankResult
from model.signals import candidates
from model.signals.candidates import CatalogSnapshot
from model.signals.gather import gather
from model.state.stream_state import History, StreamState, TitleMetadata

EVERY: Final = 2_000  # events between two retrainings
EPOCHS: Final = (5, 10, 20)
ASKED: Final = 2_000  # events by which E is chosen, at most
ONLINE, RETRAINED, STILL = NAMES = "online", "retrained", "retrained, counters too"


class Served(Instrumented):
    """A contender whose weights stand still between retrainings, and that notes the records for the next one."""

    def learn(self, snapshot: CatalogSnapshot, *rest: Any, **named: Any) -> dict[str, float]:
        return {}


class Still(Served):
    """It reads counters as they were when it was last made, too."""

    stream_state: StreamState
    snapshot: CatalogSnapshot
    text_NV: NDArray[np.float32]

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        self.snapshot = candidates.view(self.stream_state)
        self.text_NV = candidates.text_scores(self.snapshot, [request.history for request in requests])
        super().prepare(self.snapshot, histories, requests)

    def rank(self, snapshot: CatalogSnapshot, request: RankingRequest, n: int, *rest: Any, **named: Any) -> RankResult:
        asked = self.stream_state.query(request.history, request.now, request.delay)
        gather(asked, self.snapshot.titles, self.stream_state.counters, self.snapshot.scratch)
        standing = super().rank(self.snapshot, request, n, asked, self.text_NV[n], *rest[2:], **named)
        self.alone.clear()  # what it has seen lately, the copy does not know
        return standing


class Online(Instrumented):
    """The learner as it is, its training counted."""

    cost: Cost

    def learn(self, snapshot: CatalogSnapshot, *rest: Any, **named: Any) -> dict[str, float]:
        learn = super().learn
        return self.cost.of(lambda: learn(snapshot, *rest, **named))


class Retraining:
    """The rivals' schedule: before each micro-batch, whether it is time, and what is done then."""

    def __init__(self, settings: LearnerSettings, learner: Learner, say: Say, every: int = EVERY) -> None:
        self.settings, self.learner, self.say, self.every = settings, learner, say, every
        self.histories, self.cost = Histories(), Cost()
        self.records_cost = Cost()
        self.times: list[dict[str, Any]] = []  # what each retraining was
        self.epochs = EPOCHS[0]

    def __call__(self, done: int, batch: Batch) -> None:
        """`done` events have been learned; `batch` comes next."""
        if done >= (len(self.times) + 1) * self.every:
            self.retrain(done)
        still = self.learner.pipelines[STILL]
        assert isinstance(still, Still)
        still.stream_state.launch(item for item in batch if isinstance(item, TitleMetadata))
        self.histories.add(batch)

    def retrain(self, done: int) -> None:
        """Everything anew from what happened so far."""
        stream_state, limit = self.learner.stream_state, self.settings.sequence.network.history
        histories = list(self.histories.histories(stream_state))
        tried: dict[int, float] = {}
        if (len(self.times) + 1).bit_count() == 1:  # the first time, the second, the fourth, the eighth
            tried = self.search(done, histories, limit)
            self.epochs = max(tried, key=lambda epochs: tried[epochs])
        windows = [piece for history, _ in histories for piece in pieces(history, range(len(history.rows_L)), limit)]
        model = fitted(self.settings, stream_state, windows, self.epochs, self.cost)
        for name in (RETRAINED, STILL):
            rival = self.learner.pipelines[name]
            fresh = refit(self.settings.ranker, self.settings.seed)
            if self.times:  # what was noted before there was a network is left out
                cost = self.records_cost if name == RETRAINED else Cost()  # the second row is no part of the price
                fresh.fit(rival.ranker, max(1, round(self.settings.ranker.visits)), cost)
            rival.sequence, rival.ranker = model, fresh
            if isinstance(rival, Still):
                rival.stream_state = copy.deepcopy(stream_state)
        self.times.append({"events": done, "epochs": self.epochs, "windows": len(windows), "tried": tried})
        self.say(f"retrained after {done:,} events, {self.epochs} epochs of {len(windows):,} windows {tried or ''}")

    def search(self, done: int, histories: Sequence[tuple[History, NDArray[np.int64]]], limit: int) -> dict[int, float]:
        """MRR on the newest tenth by number of epochs over the rest."""
        stream_state, newest = self.learner.stream_state, done - min(done // 10, ASKED)
        cut = [(history, int(np.searchsorted(numbers, newest))) for history, numbers in histories]
        older = [piece for history, at in cut for piece in pieces(history.before(at), range(at), limit)]
        asked = [(history, list(range(at, len(history.rows_L)))) for history, at in cut if at < len(history.rows_L)]
        return {
            epochs: asked_alone(
                fitted(self.settings, stream_state, older, epochs, Cost()), stream_state, asked, self.settings.repeats
            )
            for epochs in EPOCHS
        }


def pipelines(settings: LearnerSettings) -> tuple[Online, Served, Still]:
    """All three at their beginning, as NAMES has them."""
    online = Online.of(watched(settings), settings.repeats)
    retrained = Served.of(watched(settings), settings.repeats)
    still = Still.of(watched(settings), settings.repeats)
    online.cost, still.stream_state = Cost(), StreamState(settings.memory)
    for rival in (retrained, still):
        rival.ranker = refit(settings.ranker, settings.seed)
    return online, retrained, still


def run(
    data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say, every: int | None = None
) -> dict[str, Any]:
    """All three over the stream; measures, costs and curves. On a short stream retrainings are closer together: the
    second, from which on there is a ranker, must have been when the first fifth is over."""
    every = every or max(1, min(EVERY, len(data) // 10))
    three = pipelines(settings)
    learner = Learner(settings, dict(zip(NAMES, three, strict=True)))
    schedule = Retraining(settings, learner, say, every)
    recorded = stream(data, encode, learner, say, Baselines(repeats=settings.repeats), schedule)
    return report(recorded, len(data), three[0].cost, schedule)


def report(recorded: Recorded, events: int, own: Cost, schedule: Retraining) -> dict[str, Any]:
    """Where both stand, at what price, and from how many events on the online learner's price is a tenth."""
    rival = schedule.cost.total() + schedule.records_cost.total()
    met = sum(one["events"] for one in schedule.times)  # events times retrainings
    a_event, a_met = own.total() / max(events, 1), rival / max(met, 1)
    return {
        "every": schedule.every,
        "times": schedule.times,
        "mrr": {name: recorded.mrr(name) for name in recorded.ranks},
        "gains": [{"of": ONLINE, "over": other, "gain": recorded.gain(ONLINE, other)} for other in NAMES[1:]],
        "curve": recorded.curve(),
        "flops": {
            ONLINE: own.total(), RETRAINED: rival, "network": schedule.cost.total(),
            "tenth": 20 * a_event * schedule.every / a_met if a_met else None,
        },
    }  # fmt: skip
