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
from infra.experiments.harness import Batch, Recorded, Say, Watched, stream, watched
from model.learner import Learner, LearnerSettings
from model.metrics.baselines import Baselines
from model.pipeline import Question, Standing
from model.signals import candidates
from model.signals.candidates import View
from model.signals.gather import gather
from model.state.stream_state import Launched, Memory, Past

EVERY: Final = 2_000  # events between two retrainings
EPOCHS: Final = (5, 10, 20)
ASKED: Final = 2_000  # events by which E is chosen, at most
ONLINE, RETRAINED, STILL = NAMES = "online", "retrained", "retrained, counters too"


class Served(Watched):
    """A contender whose weights stand still between retrainings, and that notes the records for the next one."""

    def learn(self, on: View, *rest: Any, **named: Any) -> dict[str, float]:
        return {}


class Still(Served):
    """It reads counters as they were when it was last made, too."""

    memory: Memory
    on: View
    text_NV: NDArray[np.float32]

    def prepare(self, on: View, histories: Sequence[Past], questions: Sequence[Question]) -> None:
        self.on = candidates.view(self.memory)
        self.text_NV = candidates.text_scores(self.on, [question.past for question in questions])
        super().prepare(self.on, histories, questions)

    def rank(self, on: View, question: Question, n: int, *rest: Any, **named: Any) -> Standing:
        asked = self.memory.asked(question.past, question.now, question.delay)
        gather(asked, self.on.titles, self.memory.counters, self.on.scratch)
        standing = super().rank(self.on, question, n, asked, self.text_NV[n], *rest[2:], **named)
        self.alone.clear()  # what it has seen lately, the copy does not know
        return standing


class Online(Watched):
    """The learner as it is, its training counted."""

    cost: Cost

    def learn(self, on: View, *rest: Any, **named: Any) -> dict[str, float]:
        learn = super().learn
        return self.cost.of(lambda: learn(on, *rest, **named))


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
        still = self.learner.contenders[STILL]
        assert isinstance(still, Still)
        still.memory.launch(item for item in batch if isinstance(item, Launched))
        self.histories.add(batch)

    def retrain(self, done: int) -> None:
        """Everything anew from what happened so far."""
        memory, limit = self.learner.memory, self.settings.sequence.network.history
        pasts = list(self.histories.pasts(memory))
        tried: dict[int, float] = {}
        if (len(self.times) + 1).bit_count() == 1:  # the first time, the second, the fourth, the eighth
            tried = self.search(done, pasts, limit)
            self.epochs = max(tried, key=lambda epochs: tried[epochs])
        windows = [piece for past, _ in pasts for piece in pieces(past, range(len(past.rows_L)), limit)]
        model = fitted(self.settings, memory, windows, self.epochs, self.cost)
        for name in (RETRAINED, STILL):
            rival = self.learner.contenders[name]
            fresh = refit(self.settings.ranker, self.settings.seed)
            if self.times:  # what was noted before there was a network is left out
                cost = self.records_cost if name == RETRAINED else Cost()  # the second row is no part of the price
                fresh.fit(rival.ranker, max(1, round(self.settings.ranker.visits)), cost)
            rival.sequence, rival.ranker = model, fresh
            if isinstance(rival, Still):
                rival.memory = copy.deepcopy(memory)
        self.times.append({"events": done, "epochs": self.epochs, "windows": len(windows), "tried": tried})
        self.say(f"retrained after {done:,} events, {self.epochs} epochs of {len(windows):,} windows {tried or ''}")

    def search(self, done: int, pasts: Sequence[tuple[Past, NDArray[np.int64]]], limit: int) -> dict[int, float]:
        """MRR on the newest tenth by number of epochs over the rest."""
        memory, newest = self.learner.memory, done - min(done // 10, ASKED)
        cut = [(past, int(np.searchsorted(numbers, newest))) for past, numbers in pasts]
        older = [piece for past, at in cut for piece in pieces(past.before(at), range(at), limit)]
        asked = [(past, list(range(at, len(past.rows_L)))) for past, at in cut if at < len(past.rows_L)]
        return {
            epochs: asked_alone(
                fitted(self.settings, memory, older, epochs, Cost()), memory, asked, self.settings.repeats
            )
            for epochs in EPOCHS
        }


def contenders(settings: LearnerSettings) -> tuple[Online, Served, Still]:
    """All three at their beginning, as NAMES has them."""
    online = Online.of(watched(settings), settings.repeats)
    retrained = Served.of(watched(settings), settings.repeats)
    still = Still.of(watched(settings), settings.repeats)
    online.cost, still.memory = Cost(), Memory(settings.memory)
    for rival in (retrained, still):
        rival.ranker = refit(settings.ranker, settings.seed)
    return online, retrained, still


def run(
    data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say, every: int | None = None
) -> dict[str, Any]:
    """All three over the stream; measures, costs and curves. On a short stream retrainings are closer together: the
    second, from which on there is a ranker, must have been when the first fifth is over."""
    every = every or max(1, min(EVERY, len(data) // 10))
    three = contenders(settings)
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
