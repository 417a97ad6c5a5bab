"""Learns from the log: rank each new event first, then learn from it.

`observe` takes one micro-batch of the log: titles as they launch and users' histories with their new events. It ranks
every new event by what was known before it, in the order given, counts it, and after the last one takes the training
steps. It is a function of its state and the batch alone; nothing reads a clock.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.actions import WEIGHTS
from model.pipeline import Contender, Question
from model.sequence.model import SequenceModel, SequenceSettings
from model.signals import candidates
from model.signals.gather import gather
from model.signals.ranker import Ranker, RankerSettings
from model.state.stream_state import Launched, Memory, MemorySettings, Past


@dataclass(frozen=True)
class LearnerSettings:
    """delayed: share of events that are also asked as if the last few were unknown · repeats: people come back to the
    same title, so that nothing seen is left out · shortlist: candidates that the ranker orders."""

    memory: MemorySettings = field(default_factory=MemorySettings)
    sequence: SequenceSettings = field(default_factory=SequenceSettings)
    ranker: RankerSettings = field(default_factory=RankerSettings)
    shortlist: int = 400
    delayed: float = 0.3
    repeats: bool = False
    seed: int = 0


class Acted(NamedTuple):
    """A user's history in event-time order and which entries are new; `order` sorts new events across users."""

    user: str
    titles: Sequence[str]
    times: Sequence[int]  # ms
    actions: Sequence[int]  # codes
    new: Sequence[int]
    order: Sequence[int]


class Ranked(NamedTuple):
    """One event as it was ranked: by contender; infinity where its title was no candidate; by none where it was left
    out. Counts are from before it. `best`: the titles that each would have shown, best first, where the learner tells
    them."""

    user: str
    title: str
    ts: int
    title_events: int
    user_events: int
    ranks: dict[str, float]
    best: Mapping[str, Sequence[str]] = {}


class Learned(NamedTuple):
    """What one micro-batch was: ranks in order, losses in nats by contender and part."""

    ranked: list[Ranked]
    losses: dict[str, dict[str, float]]


def new_contender(settings: LearnerSettings, backbone: bool = True) -> Contender:
    """A model at its beginning; without the backbone its signals are hidden from the ranker."""
    hidden = () if backbone else ("backbone", "backbone lead")
    ranker = Ranker(settings.ranker, settings.seed, hidden)
    sequence = SequenceModel(settings.sequence, settings.seed) if backbone else None
    return Contender(ranker, sequence, settings.shortlist, settings.seed)


class Learner:
    """A memory and the contenders that share it; the one named `premiere` is the model. `top`: how many titles of each
    ranking it tells."""

    def __init__(self, settings: LearnerSettings, contenders: dict[str, Contender] | None = None, top: int = 0) -> None:
        self.top = top
        self.settings = settings
        self.memory = Memory(settings.memory)
        self.contenders = {"premiere": new_contender(settings)} if contenders is None else contenders
        self.rng = np.random.default_rng(settings.seed)
        self.steps = 0  # micro-batches

    def observe(self, batch: Sequence[Launched | Acted], replay: float = 1.0, ranked: float = 1.0) -> Learned:
        """Take in the batch's titles, rank its new events, count them, learn from them. `replay` scales what is learned
        again, `ranked` is the share of the events that are ranked, a fair sample: to rank one costs more than all else
        that is done with it. Titles come first: within a micro-batch an event may precede its title."""
        self._make_room()
        self.memory.launch(item for item in batch if isinstance(item, Launched))
        histories, new, questions = self._read([item for item in batch if isinstance(item, Acted)], ranked)
        if not questions:
            return Learned([], {})
        self.memory.audience.make_room(Counter(q.past.user for q in questions))
        on = candidates.view(self.memory)
        asked = [question for question in questions if question.ranked]
        text_NV = candidates.text_scores(on, [question.past for question in asked])
        for contender in self.contenders.values():
            contender.prepare(on, histories, asked)
        scored = enumerate(text_NV)
        found = [self._rank(on, q, *next(scored)) if q.ranked else self._count(q, {}, {}) for q in questions]
        losses = {name: c.learn(on, histories, new, replay) for name, c in self.contenders.items()}
        for contender in self.contenders.values():
            if contender.learns and contender.sequence is not None:
                for past in histories:
                    contender.sequence.keep(past, self.memory.audience.count(past.user))
        self.steps += 1
        return Learned([event for event in found if event is not None], losses)

    def forget_user(self, user: str) -> None:
        """Drop everything that is kept of a user. What weights and counters learned with it stays in them, and so do
        the ranker's last records: signals without a name."""
        self.memory.audience.forget_user(user)
        for contender in self.contenders.values():
            if contender.sequence is not None:
                contender.sequence.forget_user(user)

    def _make_room(self) -> None:
        rows = self.memory.make_room()
        if len(rows):
            for contender in self.contenders.values():
                if contender.sequence is not None:
                    contender.sequence.forget_titles(rows)

    def _read(self, batch: Sequence[Acted], ranked: float) -> tuple[list[Past], list[list[int]], list[Question]]:
        """Histories as rows, and new events as questions, in their order."""
        histories: list[Past] = []
        new: list[list[int]] = []
        asked: list[tuple[int, Question]] = []
        for item in batch:
            self.memory.sequence += 1
            targets = [i for i in item.new if WEIGHTS[item.actions[i]] > 0]
            rows_L = self.memory.catalogue.find(item.titles)
            for i in targets:
                rows_L[i] = self.memory.row(item.titles[i])
            past = Past(item.user, rows_L, np.array(item.times, np.int64), np.array(item.actions, np.int64))
            order = dict(zip(item.new, item.order, strict=True))
            asked += [(order[i], _question(past, i, len(histories))) for i in targets]
            histories.append(past)
            new.append(targets)
        asked.sort(key=lambda pair: pair[0])
        questions = [question for _, question in asked]
        if ranked < 1:
            questions = [replace(q, ranked=bool(self.rng.random() < ranked)) for q in questions]
        return histories, new, [q for question in questions for q in self._with_delayed(question, histories)]

    def _with_delayed(self, question: Question, histories: Sequence[Past]) -> list[Question]:
        """For some events, first the same question as a reader of a list written `delay` events ago poses it."""
        horizons = self.settings.sequence.network.horizons[1:]
        if not question.ranked or not horizons or self.rng.random() >= self.settings.delayed:
            return [question]
        delay = int(self.rng.choice(horizons))
        known = question.event_index - delay
        if known < 1:
            return [question]
        past = histories[question.history_index]
        now = int(past.times_L[known - 1])
        late = replace(question, past=past.before(known), now=now, delay=delay)
        return [late, question]

    def _rank(self, on: candidates.View, q: Question, n: int, text_V: NDArray[np.float32]) -> Ranked | None:
        """Rank one question by every contender, then count it; a delayed one is only learned from."""
        memory = self.memory
        asked = memory.asked(q.past, q.now, q.delay)
        gather(asked, on.titles, memory.counters, on.scratch)
        seen = memory.audience.seen_by(q.past.user)
        blocked = np.zeros(0, np.int32) if self.settings.repeats else seen
        if q.delay and not self.settings.repeats:  # the reader of an old list had not seen the last few yet
            blocked = seen[: max(len(seen) - q.delay, 0)]
        found = {name: c.rank(on, q, n, asked, text_V, blocked, self.top) for name, c in self.contenders.items()}
        if q.delay:
            return None
        ids = memory.catalogue.ids
        best = {name: [ids[row] for row in standing.best_T.tolist()] for name, standing in found.items()}
        return self._count(q, {name: standing.rank for name, standing in found.items()}, best if self.top else {})

    def _count(self, q: Question, ranks: dict[str, float], best: Mapping[str, Sequence[str]]) -> Ranked:
        memory = self.memory
        before = int(memory.catalogue.count_V[q.target]), memory.audience.count(q.past.user)
        memory.count(q.past, q.target, q.now, q.action)
        return Ranked(q.past.user, memory.catalogue.ids[q.target], q.now, *before, ranks, best)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what follows, in three parts: a server reads `memory` and `served` alone."""
        n = len(self.memory.catalogue)
        return {
            "memory": self.memory.state_dict(),
            "served": {name: contender.served_state(n) for name, contender in self.contenders.items()},
            "training": {
                "contenders": {name: contender.training_state(n) for name, contender in self.contenders.items()},
                "rng": self.rng.bit_generator.state,
                "steps": self.steps,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"])
        for name, contender in self.contenders.items():
            contender.load_served(state["served"][name])
            contender.load_training(state["training"]["contenders"][name])
        self.rng.bit_generator.state = state["training"]["rng"]
        self.steps = state["training"]["steps"]


def _question(past: Past, event_index: int, history_index: int) -> Question:
    now, target, action = (int(array_L[event_index]) for array_L in (past.times_L, past.rows_L, past.actions_L))
    return Question(past.before(event_index), now, target, action, history_index, event_index)
