"""The online learner: ranks the titles before each new event, then learns from the event (test-then-train).

`observe` processes one micro-batch of the learner log: launched titles, and users' histories with their new events. For
each new event, in the given order, it ranks the titles for the user with the state from before the event, notes the
rank of the event's title, and counts the event. Under load it ranks a random sample of the events (`ranked_share`), but
counts all. Events on titles that wait for their launch have rank infinity; they are not counted and not trained on, and
stay in the history as events on unknown titles. After the last event it takes the training steps. The result depends
only on the state and the batch; no clock is read.

N requests that are ranked · L events of a history · M a subset of titles · V titles of the catalog
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from model.pipeline import (
    Pipeline,
    PreparedRequest,
    RankingPipeline,
    RankingRequest,
    RequestObserver,
    new_pipeline,
)
from model.sequence.model import SequenceModel
from model.settings import LearnerSettings, with_text_width
from model.signals import candidates
from model.signals.inputs import user_query
from model.signals.query_scores import QueryScores
from model.signals.snapshot import CatalogSnapshot, take_snapshot
from model.state.embedding_space import EmbeddingSpace
from model.state.new_events import AdmittedEvent, admit_events, positive_events
from model.state.stream_state import History, StreamState, TitleMetadata, UserUpdate
from model.state.untrained_events import UntrainedEvents


class RankedEvent(NamedTuple):
    """A new event and the ranks of its title."""

    user: str
    title: str
    ts: int  # ms
    title_events: int  # of the title before this event
    user_events: int  # of the user before this event
    # By pipeline, and of an observer; infinity if the title was not a candidate; empty if the event was not ranked.
    ranks: dict[str, float]
    top_titles: Mapping[str, Sequence[str]] = {}  # by pipeline, best first; empty if `Learner.top_k` is 0
    is_learned: bool = True  # False if the title waits for admission


class BatchResult(NamedTuple):
    """The result of one micro-batch."""

    ranked: list[RankedEvent]  # all new events of positive weight, ranked or not, in order
    losses: dict[str, dict[str, float]]  # pipeline -> part -> nats


class Learner:
    """The stream state and the pipelines that share it.

    By default there is one pipeline, `full`, the model that is served. `top_k` is the number of best titles per
    pipeline that a RankedEvent reports.
    """

    def __init__(
        self, settings: LearnerSettings, pipelines: Mapping[str, Pipeline] | None = None, top_k: int = 0
    ) -> None:
        self.top_k = top_k
        self.settings = settings
        self.stream_state = StreamState(settings.stream_state)
        self.pipelines = {"full": new_pipeline(settings)} if pipelines is None else dict(pipelines)
        self.rng = np.random.default_rng(settings.seed)
        self.snapshot: CatalogSnapshot | None = None  # of the last micro-batch
        self.micro_batches = 0  # micro-batches with new events that were trained on so far
        self.untrained = UntrainedEvents(settings.stream_state.max_users)

    @property
    def served_pipeline(self) -> RankingPipeline:
        """The pipeline that is served."""
        return self._saved_pipelines()["full"]

    def observe(
        self,
        batch: Sequence[TitleMetadata | UserUpdate],
        replay_share: float = 1.0,
        ranked_share: float = 1.0,
        trains: bool = True,
        observer: RequestObserver | None = None,
    ) -> BatchResult:
        """Apply the batch's titles; rank before each new event and count it; then learn from the new events.

        `replay_share` scales the number of replayed windows. `ranked_share` is the share of the events that are ranked,
        a uniform sample; ranking costs more than all other work on an event. Titles are applied first, because an event
        may precede its title within a micro-batch. With `trains` False, the events are counted and enter the histories,
        but they are not ranked, and no training step uses them as a target, now or in a replay. An `observer` sees each
        request that is ranked.
        """
        self._evict_titles()
        self.stream_state.launch(item for item in batch if isinstance(item, TitleMetadata))
        updates = [item for item in batch if isinstance(item, UserUpdate)]
        histories, new, ordered, misses = self._requests(updates, ranked_share if trains else 0.0)
        rows = self.stream_state.refresh()
        for pipeline in self.pipelines.values():
            pipeline.refresh(self.stream_state.catalog, rows)
        if not ordered:
            return BatchResult([event for _, event in misses], {})
        requests = [one for _, request in ordered for one in self._with_delayed(request, histories)]
        self.stream_state.user_store.reserve(Counter(request.history.user for request in requests))
        events, snapshot = self._rank_and_count(histories, requests, observer)
        in_order = [*zip((order for order, _ in ordered), events, strict=True), *misses]
        ranked = [event for _, event in sorted(in_order, key=lambda pair: pair[0])]
        if not trains:
            self.untrained.add(histories, new)
            return BatchResult(ranked, {})
        losses = {name: p.learn(snapshot, histories, new, replay_share) for name, p in self.pipelines.items()}
        for pipeline in self.pipelines.values():
            if pipeline.learns and pipeline.sequence is not None:
                for history in histories:
                    self._add_to_replay(pipeline.sequence, history)
        self.micro_batches += 1
        return BatchResult(ranked, losses)

    def restart_text(self, space: EmbeddingSpace) -> None:
        """Take text embeddings of another space from now on: their layers start again, and all else is kept."""
        self.settings = with_text_width(self.settings, space.width)
        self.stream_state.restart_text(space)
        for pipeline in self.pipelines.values():
            if pipeline.sequence is not None:
                pipeline.sequence.restart_text(space.width)

    def _add_to_replay(self, sequence: SequenceModel, history: History) -> None:
        """Store a history for replay, without its events up to the last one that must not be a target."""
        first = self.untrained.first_trained(history)
        sequence.add_to_replay(history.after(first), self.stream_state.user_store.event_count(history.user))

    def erase_user(self, user: str) -> None:
        """Drop all state of a user.

        Weights and aggregate counters keep the user's influence, and the ranker keeps its recent training examples,
        which hold signals without a user id.
        """
        self.stream_state.erase_user(user)
        self.untrained.erase_user(user)
        for pipeline in self.pipelines.values():
            if pipeline.sequence is not None:
                pipeline.sequence.erase_user(user)

    def _evict_titles(self) -> None:
        rows = self.stream_state.evict_titles()
        if len(rows):
            for pipeline in self.pipelines.values():
                if pipeline.sequence is not None:
                    pipeline.sequence.evict_titles(rows)

    def _requests(
        self, updates: Sequence[UserUpdate], ranked_share: float
    ) -> tuple[list[History], list[list[int]], list[tuple[int, RankingRequest]], list[tuple[int, RankedEvent]]]:
        """(histories, indices of each history's new events, (order, request) of each event in order, (order, event) of
        the events on waiting titles)."""
        histories: list[History] = []
        new: list[list[int]] = []
        by_order: list[tuple[int, RankingRequest]] = []
        misses: list[tuple[int, RankedEvent]] = []
        for item in updates:
            self.stream_state.sequence += 1
            history, events = admit_events(self.stream_state, item)
            by_order += [(event.order, _ranking_request(event, len(histories))) for event in events]
            targets, order = [event.event_index for event in events], dict(zip(item.new, item.order, strict=True))
            waiting = [index for index in positive_events(item) if index not in targets]
            misses += [(order[index], self._miss(item, index, ranked_share)) for index in waiting]
            histories.append(history)
            new.append(targets)
        by_order.sort(key=lambda pair: pair[0])
        if ranked_share < 1:
            by_order = [(at, replace(one, ranked=bool(self.rng.random() < ranked_share))) for at, one in by_order]
        return histories, new, by_order, misses

    def _miss(self, update: UserUpdate, index: int, ranked_share: float) -> RankedEvent:
        """A new event on a waiting title. No list can hold the title, so every pipeline ranks it at infinity."""
        ranked = ranked_share >= 1 or self.rng.random() < ranked_share
        ranks = dict.fromkeys(self.pipelines, float("inf")) if ranked else {}
        user_events = self.stream_state.user_store.event_count(update.user)
        title, ts = update.titles[index], update.times[index]
        return RankedEvent(update.user, title, ts, 0, user_events, ranks, is_learned=False)

    def _with_delayed(self, request: RankingRequest, histories: Sequence[History]) -> list[RankingRequest]:
        """The request, for some events preceded by a delayed one.

        A delayed request ranks the same event with the history as it was `delay` events earlier, when a served list may
        have been written.
        """
        horizons = self.settings.sequence.network.horizons[1:]
        if not request.ranked or not horizons or self.rng.random() >= self.settings.delayed_query_share:
            return [request]
        delay = int(self.rng.choice(horizons))
        known_events = request.event_index - delay
        if known_events < 1:
            return [request]
        history = histories[request.history_index]
        now = int(history.times_L[known_events - 1])
        delayed = replace(request, history=history.before(known_events), now=now, delay=delay)
        return [delayed, request]

    def _rank_and_count(
        self, histories: Sequence[History], requests: Sequence[RankingRequest], observer: RequestObserver | None
    ) -> tuple[list[RankedEvent], CatalogSnapshot]:
        """Rank and count each request in turn; (events, the snapshot from before the batch)."""
        snapshot = self.snapshot = take_snapshot(self.stream_state, self.snapshot)
        to_rank = [request for request in requests if request.ranked]
        text = candidates.text_scores(snapshot, [request.history for request in to_rank])
        for pipeline in self.pipelines.values():
            pipeline.prepare(snapshot, histories, to_rank)
        if observer is not None:
            observer.on_prepared(snapshot, histories, to_rank)
        events, n = list[RankedEvent](), -1
        for request in requests:
            if not request.ranked:
                events.append(self._count(request, {}, {}))
                continue
            n += 1
            prepared = self._read(snapshot, request, n, text[n])
            results = {name: one.rank(snapshot, prepared, self.top_k) for name, one in self.pipelines.items()}
            if request.delay:  # only the ranker learns from it
                continue
            ids, ranks = self.stream_state.catalog.ids, {name: result.rank for name, result in results.items()}
            ranks |= {} if observer is None else observer.on_ranked(snapshot, prepared)
            top = {name: [ids[row] for row in result.top_M.tolist()] for name, result in results.items()}
            events.append(self._count(request, ranks, top if self.top_k else {}))
        return events, snapshot

    def _read(self, snapshot: CatalogSnapshot, request: RankingRequest, n: int, text: QueryScores) -> PreparedRequest:
        stream_state, delay = self.stream_state, request.delay
        query = user_query(stream_state, request.history, request.now, delay)
        user = candidates.user_signals(snapshot, query)
        seen = stream_state.user_store.seen_by(request.history.user)
        blocked = np.zeros(0, np.int32) if self.settings.repeats else seen
        if delay and not self.settings.repeats:  # an old list may hold the titles of the last events
            blocked = seen[: max(len(seen) - delay, 0)]
        return PreparedRequest(request, n, user, text, blocked)

    def _count(
        self, request: RankingRequest, ranks: dict[str, float], top_titles: Mapping[str, Sequence[str]]
    ) -> RankedEvent:
        stream_state, target, user = self.stream_state, request.target, request.history.user
        title_events = int(stream_state.user_store.interactions.title_count_V[target])
        before = title_events, stream_state.user_store.event_count(user)
        stream_state.count_event(
            request.history, target, min(request.now, request.recorded), request.action, request.repeat
        )
        return RankedEvent(user, stream_state.catalog.ids[target], request.now, *before, ranks, top_titles)

    def _saved_pipelines(self) -> dict[str, RankingPipeline]:
        """The pipelines whose state is saved; the composed ones of an experiment have none."""
        return {name: one for name, one in self.pipelines.items() if isinstance(one, RankingPipeline)}

    def state_dict(self) -> dict[str, Any]:
        """Everything that later results depend on, in three parts; serving needs only `stream_state` and `served`."""
        n, pipelines = len(self.stream_state.catalog), self._saved_pipelines()
        return {
            "stream_state": self.stream_state.state_dict(),
            "served": {name: pipeline.served_state(n) for name, pipeline in pipelines.items()},
            "training": {
                "pipelines": {name: pipeline.training_state(n) for name, pipeline in pipelines.items()},
                "rng": self.rng.bit_generator.state,
                "steps": self.micro_batches,
                "untrained": self.untrained.state_dict(),
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned, with the width of its text embeddings."""
        if (d_text := StreamState.text_width(state["stream_state"])) != self.settings.stream_state.d_text:
            self.restart_text(EmbeddingSpace("", d_text))
        self.stream_state.load_state_dict(state["stream_state"])
        for name, pipeline in self._saved_pipelines().items():
            pipeline.load_served(state["served"][name])
            pipeline.load_training(state["training"]["pipelines"][name])
        self.rng.bit_generator.state = state["training"]["rng"]
        self.micro_batches = state["training"]["steps"]
        self.untrained.load_state_dict(state["training"]["untrained"])


def _ranking_request(event: AdmittedEvent, history_index: int) -> RankingRequest:
    """The request to rank the titles before an event; `history_index` is that of the user's history in the batch."""
    return RankingRequest(
        event.history,
        event.ts,
        event.row,
        event.action,
        history_index,
        event.event_index,
        repeat=event.repeat,
        recorded=event.recorded,
    )
