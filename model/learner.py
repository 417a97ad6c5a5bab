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
from model.pipeline import RankingPipeline, RankingRequest
from model.sequence.model import SequenceModel, SequenceSettings
from model.signals import candidates
from model.signals.gather import gather
from model.signals.ranker import Ranker, RankerSettings
from model.state.stream_state import History, MemorySettings, StreamState, TitleMetadata


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


class UserUpdate(NamedTuple):
    """A user's history in event-time order and which entries are new; `order` sorts new events across users."""

    user: str
    titles: Sequence[str]
    times: Sequence[int]  # ms
    actions: Sequence[int]  # codes
    new: Sequence[int]
    order: Sequence[int]


class RankedEvent(NamedTuple):
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

    ranked: list[RankedEvent]
    losses: dict[str, dict[str, float]]


def new_pipeline(settings: LearnerSettings, backbone: bool = True) -> RankingPipeline:
    """A model at its beginning; without the backbone its signals are hidden from the ranker."""
    hidden = () if backbone else ("backbone", "backbone lead")
    ranker = Ranker(settings.ranker, settings.seed, hidden)
    sequence = SequenceModel(settings.sequence, settings.seed) if backbone else None
    return RankingPipeline(ranker, sequence, settings.shortlist, settings.seed)


class Learner:
    """A memory and the contenders that share it; the one named `premiere` is the model. `top`: how many titles of each
    ranking it tells."""

    def __init__(
        self, settings: LearnerSettings, pipelines: dict[str, RankingPipeline] | None = None, top: int = 0
    ) -> None:
        self.top = top
        self.settings = settings
        self.stream_state = StreamState(settings.memory)
        self.pipelines = {"full": new_pipeline(settings)} if pipelines is None else pipelines
        self.rng = np.random.default_rng(settings.seed)
        self.steps = 0  # micro-batches

    def observe(self, batch: Sequence[TitleMetadata | UserUpdate], replay: float = 1.0, ranked: float = 1.0) -> Learned:
        """Take in the batch's titles, rank its new events, count them, learn from them. `replay` scales what is learned
        again, `ranked` is the share of the events that are ranked, a fair sample: to rank one costs more than all else
        that is done with it. Titles come first: within a micro-batch an event may precede its title."""
        self._make_room()
        self.stream_state.launch(item for item in batch if isinstance(item, TitleMetadata))
        histories, new, requests = self._read([item for item in batch if isinstance(item, UserUpdate)], ranked)
        if not requests:
            return Learned([], {})
        self.stream_state.user_store.make_room(Counter(q.history.user for q in requests))
        snapshot = candidates.view(self.stream_state)
        query = [request for request in requests if request.ranked]
        text_NV = candidates.text_scores(snapshot, [request.history for request in query])
        for pipeline in self.pipelines.values():
            pipeline.prepare(snapshot, histories, query)
        scored = enumerate(text_NV)
        found = [self._rank(snapshot, q, *next(scored)) if q.ranked else self._count(q, {}, {}) for q in requests]
        losses = {name: c.learn(snapshot, histories, new, replay) for name, c in self.pipelines.items()}
        for pipeline in self.pipelines.values():
            if pipeline.learns and pipeline.sequence is not None:
                for history in histories:
                    pipeline.sequence.keep(history, self.stream_state.user_store.count(history.user))
        self.steps += 1
        return Learned([event for event in found if event is not None], losses)

    def erase_user(self, user: str) -> None:
        """Drop everything that is kept of a user. What weights and counters learned with it stays in them, and so do
        the ranker's last records: signals without a name."""
        self.stream_state.user_store.erase_user(user)
        for pipeline in self.pipelines.values():
            if pipeline.sequence is not None:
                pipeline.sequence.erase_user(user)

    def _make_room(self) -> None:
        rows = self.stream_state.make_room()
        if len(rows):
            for pipeline in self.pipelines.values():
                if pipeline.sequence is not None:
                    pipeline.sequence.evict_titles(rows)

    def _read(
        self, batch: Sequence[UserUpdate], ranked: float
    ) -> tuple[list[History], list[list[int]], list[RankingRequest]]:
        """Histories as rows, and new events as questions, in their order."""
        histories: list[History] = []
        new: list[list[int]] = []
        query: list[tuple[int, RankingRequest]] = []
        for item in batch:
            self.stream_state.sequence += 1
            targets = [i for i in item.new if WEIGHTS[item.actions[i]] > 0]
            rows_L = self.stream_state.catalog.find(item.titles)
            for i in targets:
                rows_L[i] = self.stream_state.row(item.titles[i])
            history = History(item.user, rows_L, np.array(item.times, np.int64), np.array(item.actions, np.int64))
            order = dict(zip(item.new, item.order, strict=True))
            query += [(order[i], _ranking_request(history, i, len(histories))) for i in targets]
            histories.append(history)
            new.append(targets)
        query.sort(key=lambda pair: pair[0])
        requests = [request for _, request in query]
        if ranked < 1:
            requests = [replace(q, ranked=bool(self.rng.random() < ranked)) for q in requests]
        return histories, new, [q for request in requests for q in self._with_delayed(request, histories)]

    def _with_delayed(self, request: RankingRequest, histories: Sequence[History]) -> list[RankingRequest]:
        """For some events, first the same question as a reader of a list written `delay` events ago poses it."""
        horizons = self.settings.sequence.network.horizons[1:]
        if not request.ranked or not horizons or self.rng.random() >= self.settings.delayed:
            return [request]
        delay = int(self.rng.choice(horizons))
        known = request.event_index - delay
        if known < 1:
            return [request]
        history = histories[request.history_index]
        now = int(history.times_L[known - 1])
        late = replace(request, history=history.before(known), now=now, delay=delay)
        return [late, request]

    def _rank(
        self, snapshot: candidates.CatalogSnapshot, q: RankingRequest, n: int, text_V: NDArray[np.float32]
    ) -> RankedEvent | None:
        """Rank one question by every contender, then count it; a delayed one is only learned from."""
        stream_state = self.stream_state
        query = stream_state.query(q.history, q.now, q.delay)
        gather(query, snapshot.titles, stream_state.counters, snapshot.scratch)
        seen = stream_state.user_store.seen_by(q.history.user)
        blocked = np.zeros(0, np.int32) if self.settings.repeats else seen
        if q.delay and not self.settings.repeats:  # the reader of an old list had not seen the last few yet
            blocked = seen[: max(len(seen) - q.delay, 0)]
        found = {name: c.rank(snapshot, q, n, query, text_V, blocked, self.top) for name, c in self.pipelines.items()}
        if q.delay:
            return None
        ids = stream_state.catalog.ids
        best = {name: [ids[row] for row in standing.best_T.tolist()] for name, standing in found.items()}
        return self._count(q, {name: standing.rank for name, standing in found.items()}, best if self.top else {})

    def _count(self, q: RankingRequest, ranks: dict[str, float], best: Mapping[str, Sequence[str]]) -> RankedEvent:
        stream_state = self.stream_state
        before = int(stream_state.catalog.count_V[q.target]), stream_state.user_store.count(q.history.user)
        stream_state.count(q.history, q.target, q.now, q.action)
        return RankedEvent(q.history.user, stream_state.catalog.ids[q.target], q.now, *before, ranks, best)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what follows, in three parts: a server reads `stream_state` and `served` alone."""
        n = len(self.stream_state.catalog)
        return {
            "stream_state": self.stream_state.state_dict(),
            "served": {name: pipeline.served_state(n) for name, pipeline in self.pipelines.items()},
            "training": {
                "contenders": {name: pipeline.training_state(n) for name, pipeline in self.pipelines.items()},
                "rng": self.rng.bit_generator.state,
                "steps": self.steps,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stream_state.load_state_dict(state["stream_state"])
        for name, pipeline in self.pipelines.items():
            pipeline.load_served(state["served"][name])
            pipeline.load_training(state["training"]["contenders"][name])
        self.rng.bit_generator.state = state["training"]["rng"]
        self.steps = state["training"]["steps"]


def _ranking_request(history: History, event_index: int, history_index: int) -> RankingRequest:
    now, target, action = (
        int(array_L[event_index]) for array_L in (history.times_L, history.rows_L, history.actions_L)
    )
    return RankingRequest(history.before(event_index), now, target, action, history_index, event_index)
