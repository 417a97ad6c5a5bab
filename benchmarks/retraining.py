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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence_stream import Batch, Recorded, Say, Watched, stream, watched
from features.text import Encoder
from infra.datasets import DataSet
from infra.evaluate import BATCH
from model import lists
from model.actions import WEIGHTS
from model.baselines import Baselines
from model.contender import Contender, Question, Standing
from model.flops import counting
from model.gather import gather
from model.learner import Acted, Learner, LearnerSettings
from model.lists import View
from model.memory import Launched, Memory, Past
from model.metrics import average_rank
from model.ranker import Ranker, RankerSettings
from model.sequence import SequenceModel

EVERY: Final = 2_000  # events between two retrainings
EPOCHS: Final = (5, 10, 20)
WINDOWS: Final = 8  # a step of the retrained network
COUNTED: Final = 20  # steps of which one's operations are counted
RECORDS: Final = 32_768  # that the retrained ranker learns from, at most: the newest
ASKED: Final = 2_000  # events by which E is chosen, at most
ONLINE, RETRAINED, STILL = NAMES = "online", "retrained", "retrained, counters too"
T = TypeVar("T")

Piece = tuple[Past, list[int]]  # a window and the events of it that are learned


class Cost:
    """Operations of many steps, from those of one in COUNTED."""

    def __init__(self) -> None:
        self.steps = self.counted = 0
        self.flops = 0.0

    def of(self, step: Callable[[], T]) -> T:
        """Take the step; count it where its turn has come."""
        self.steps += 1
        if (self.steps - 1) % COUNTED:
            return step()
        with counting() as counter:
            done = step()
        self.counted += 1
        self.flops += float(counter.get_total_flops())
        return done

    def total(self) -> float:
        """Of all steps."""
        return self.flops / max(self.counted, 1) * self.steps


class Histories:
    """All that users did so far, with the number of each event in the stream."""

    def __init__(self) -> None:
        self.of: dict[str, list[tuple[str, int, int, int]]] = {}  # title, ms, action, number

    def add(self, batch: Batch) -> None:
        """Take in the new events of a micro-batch."""
        for item in batch:
            if isinstance(item, Acted):
                events = zip(item.new, item.order, strict=True)
                new = [(item.titles[i], item.times[i], item.actions[i], number) for i, number in events]
                self.of.setdefault(item.user, []).extend(new)

    def pasts(self, memory: Memory) -> Iterator[tuple[Past, NDArray[np.int64]]]:
        """Each user's history as rows, and the events' numbers."""
        for user, events in self.of.items():
            titles, times, actions, numbers = zip(*events, strict=True)
            columns = (np.array(values, np.int64) for values in (times, actions))
            yield Past(user, memory.catalogue.find(titles), *columns), np.array(numbers, np.int64)


def pieces(past: Past, learned: Sequence[int], limit: int) -> Iterator[Piece]:
    """Windows that hold these events once each, every one with half a window before it; where a window is cut out of
    something longer, it has one event more, which says so."""
    rest = [event for event in learned if WEIGHTS[past.actions_L[event]] > 0]
    while rest:
        part = [event for event in rest if event < rest[0] + limit // 2]
        stop = part[-1] + 1
        start = max(stop - limit - 1, 0)
        columns = (value[start:stop] for value in (past.rows_L, past.times_L, past.actions_L))
        yield Past(past.user, *columns), [event - start for event in part]
        rest = rest[len(part) :]


class Refit(Ranker):
    """A ranker that learns from all of its records at once."""

    def fit(self, records: Ranker, passes: int, cost: Cost) -> None:
        """So many passes over what another one noted while it served."""
        self.signals_NKF, self.log_share_NK, self.written = records.signals_NKF, records.log_share_NK, records.written
        held, rng = min(self.written, self.settings.buffer), np.random.default_rng(self.steps)
        for _ in range(passes):
            order = rng.permutation(held)
            for start in range(0, held, self.settings.batch):
                cost.of(lambda part=order[start : start + self.settings.batch]: self._step(part))  # type: ignore[misc]


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
        self.on = lists.view(self.memory)
        self.text_NV = lists.text_scores(self.on, [question.past for question in questions])
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


def fitted(
    settings: LearnerSettings, memory: Memory, windows: Sequence[Piece], epochs: int, cost: Cost
) -> SequenceModel:
    """A new network, trained on these windows."""
    model = SequenceModel(replace(settings.sequence, steps=1), settings.seed)
    trainer = Contender(Ranker(settings.ranker), model)  # its ranker has no records, and learns nothing
    on, rng = lists.view(memory), np.random.default_rng(settings.seed)
    for _ in range(epochs):
        order = rng.permutation(len(windows))
        for start in range(0, len(order), WINDOWS):
            pasts, events = zip(*(windows[k] for k in order[start : start + WINDOWS]), strict=True)
            cost.of(lambda pasts=pasts, events=events: trainer.learn(on, pasts, events, 0.0))  # type: ignore[misc]
    return model


def asked_alone(model: SequenceModel, memory: Memory, questions: Sequence[Piece], repeats: bool) -> float:
    """MRR of the network's own order over these events of these histories."""
    model.refresh(memory.catalogue)
    candidate_V = memory.titles().candidate_V
    found: list[float] = []
    for past, events in questions:
        hidden_ND = model.before_events([past], np.zeros(len(events), np.int64), np.array(events))
        for score_V, event in zip(model.scores(hidden_ND, 0), events, strict=True):
            score_V[~candidate_V] = -np.inf
            target, before = past.rows_L[event], past.rows_L[:event]
            if target >= 0 and (repeats or target not in before):
                score_V[before[before >= 0] if not repeats else []] = -np.inf
                found.append(1 / average_rank(score_V, int(target)))
    return float(np.mean(found)) if found else 0.0


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
                fresh.fit(rival.ranker, passes(self.settings), cost)
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


def refit(settings: RankerSettings, seed: int) -> Refit:
    """An unlearned ranker with room for many records."""
    return Refit(replace(settings, buffer=RECORDS), seed)


def passes(settings: LearnerSettings) -> int:
    """How often the online ranker meets each of its records."""
    a_batch = BATCH * (1 + settings.delayed)
    return max(1, round(settings.ranker.steps * settings.ranker.batch / a_batch))


def run(
    data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say, every: int | None = None
) -> dict[str, Any]:
    """All three over the stream; measures, costs and curves. On a short stream retrainings are closer together: the
    second, from which on there is a ranker, must have been when the first fifth is over."""
    every = every or max(1, min(EVERY, len(data) // 10))
    online = Online.of(watched(settings), settings.repeats)
    retrained = Served.of(watched(settings), settings.repeats)
    still = Still.of(watched(settings), settings.repeats)
    online.cost, still.memory = Cost(), Memory(settings.memory)
    for rival in (retrained, still):
        rival.ranker = refit(settings.ranker, settings.seed)
    learner = Learner(settings, dict(zip(NAMES, (online, retrained, still), strict=True)))
    schedule = Retraining(settings, learner, say, every)
    recorded = stream(data, encode, learner, say, Baselines(repeats=settings.repeats), schedule)
    return report(recorded, len(data), online.cost, schedule)


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
