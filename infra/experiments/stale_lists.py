"""Ranks the target in lists of several ages: lists made before the user's last `k` events, or some hours ago.

A list of `k` events ago is made from the history without the last `k` events, at the time of the last event left in
it, as `publish` makes a list when an event arrives. A list of `h` hours ago is made from the events older than `h`
hours, at that time. Only the user's history is old. Weights and counters are the present ones, so the difference
measures the missing part of the history alone. The weights and counters have learned the missing events, as they learn
all users' events, but not the target event.

A reader picks the list of a variant by the number of events since (`streaming.stores.list_client.read`): it reads the
longest horizon that does not exceed this number. A list excludes the titles that the user had seen when it was made.
Ranks are computed both with and without the titles that the user interacted with since.

S lists to be made · D width · V titles · C candidates
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from infra.experiments.backbone_ranks import BACKBONE_ONLY, FINAL_LISTS, ORDER_LABELS
from infra.experiments.harness import ScoredEvents
from infra.experiments.prequential import Measurement
from infra.experiments.variants import ComposedPipeline
from model.actions import TARGET_WEIGHTS
from model.learner import RankedEvent
from model.metrics.ranking import average_rank
from model.pipeline import PreparedRequest, RankingPipeline, RankingRequest
from model.sequence.model import SequenceModel
from model.settings import LearnerSettings
from model.signals import candidates
from model.signals.candidates import Scores
from model.signals.inputs import user_query
from model.signals.query_scores import AllScores
from model.signals.ranker import Ranker
from model.signals.snapshot import CatalogSnapshot
from model.state.stream_state import History

EVENT_AGES: Final = (0, 1, 2, 5, 10, 20)  # list ages in events of the user
HOUR_AGES: Final = (0, 1, 6, 12, 24, 48)  # list ages in hours
HOUR_MS: Final = 3_600_000
FILTERS = FILTERED, UNFILTERED = "filtered", "unfiltered"  # titles interacted with since: removed at reading, or kept
NOT_RANKED: Final = float("nan")

_WEIGHTS: Final = np.array(TARGET_WEIGHTS)


class ListContext(NamedTuple):
    """The input that a list is made from."""

    history: History  # of the user at that time
    made_at: int  # ms
    missed: int  # events of the user since


def events_ago(history: History, k: int) -> ListContext:
    """The context before the last `k` events, at the time of the event before them, which must exist."""
    known = history.before(len(history.rows_L) - k)
    return ListContext(known, int(known.times_L[-1]), k)


def hours_ago(history: History, now: int, hours: int) -> ListContext:
    """The context at `hours` before `now`, events of that very millisecond included."""
    made_at = now - hours * HOUR_MS
    known = int(np.searchsorted(history.times_L, made_at, "right"))
    return ListContext(history.before(known), made_at, len(history.times_L) - known)


def horizon_for(horizons: Sequence[int], missed: int) -> int:
    """The horizon whose list a reader picks after `missed` events."""
    return max(horizon for horizon in horizons if horizon <= missed)


def ranking_key(variant: str, order: str, age: str, filter_: str) -> str:
    """The name under which the ranks of a variant by order, list age and filter are recorded."""
    return f"{variant} | {order} | {age} | {filter_}"


def event_age_label(k: int) -> str:
    return f"{k} events"


def hour_age_label(hours: int) -> str:
    return f"{hours} hours"


class NearestHorizon(ComposedPipeline):
    """Lets its ranker learn from delays for which the backbone has no horizon, by the nearest shorter horizon."""

    def __init__(self, pipeline: RankingPipeline) -> None:
        super().__init__(pipeline)
        self.base = pipeline

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        super().prepare(snapshot, histories, requests)
        assert self.sequence is not None
        horizons = self.sequence.settings.network.horizons
        for delay in sorted({request.delay for request in requests} - set(horizons)):
            late = [n for n, request in enumerate(requests) if request.delay == delay]
            hidden_ND = self.sequence.hidden_now([requests[n].history for n in late], [requests[n].now for n in late])
            self.base.query_NP[late] = self.sequence.queries(hidden_ND, horizons.index(horizon_for(horizons, delay)))


@dataclass(frozen=True)
class Variant:
    """A way to serve lists."""

    pipeline: RankingPipeline  # its ranker orders the shortlist
    backbone: SequenceModel  # scores the titles
    horizons: tuple[int, ...] = (0,)  # that lists are made for
    ranks_backbone: bool = True  # evaluate the backbone-only order too


class StaleLists(Measurement):
    """Ranks the target of every event from `first` on in old lists of all variants.

    `recorded` holds every event, with backbone-only ranks by age in events. `sampled` holds one event in
    `sample_every`, with all ranks: final lists and ages in hours are expensive.
    """

    def __init__(
        self, settings: LearnerSettings, variants: Mapping[str, Variant], first: int, sample_every: int
    ) -> None:
        super().__init__()
        self.variants, self.first, self.sample_every, self.repeats = variants, first, sample_every, settings.repeats
        self.recorded, self.sampled, self.done = ScoredEvents(), ScoredEvents(), 0
        event_ages, hour_ages = list(map(event_age_label, EVENT_AGES)), list(map(hour_age_label, HOUR_AGES))
        self.recorded.ranks = {key: [] for key in self._keys(event_ages, [BACKBONE_ONLY])}
        self.sampled.ranks = {key: [] for key in self._keys(event_ages + hour_ages, ORDER_LABELS)}
        self.gap_hours: list[float] = []  # since the user's previous event, for each event in `recorded`
        self.missed: dict[str, list[int]] = {age: [] for age in hour_ages}  # events, for each event in `sampled`
        self.empty: dict[str, list[bool]] = {age: [] for age in hour_ages}  # the history was empty at that time

    def on_prepared(
        self, _snapshot: CatalogSnapshot, _histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        """Encode each distinct context once, by every backbone."""
        self.contexts: dict[int, dict[str, ListContext]] = {}  # request index -> list age -> context
        self.in_sample: set[int] = set()  # request indices
        for n, request in enumerate(requests):
            if request.delay:
                continue
            if self.done >= self.first:
                if self.done % self.sample_every == 0:
                    self.in_sample.add(n)
                self.contexts[n] = dict(_contexts(request, n in self.in_sample))
            self.done += 1
        distinct = {_key(context): context for by_age in self.contexts.values() for context in by_age.values()}
        self.context_index = {key: index for index, key in enumerate(distinct)}
        known, times = [c.history for c in distinct.values()], [c.made_at for c in distinct.values()]
        backbones = {id(variant.backbone): variant.backbone for variant in self.variants.values()}
        self.hidden_SD: dict[int, Tensor] = {
            key: backbone.hidden_now(known, times) for key, backbone in backbones.items() if distinct
        }

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> dict[str, float]:
        request, n = prepared.request, prepared.n
        seen = snapshot.stream_state.user_store.seen_by(request.history.user)
        if n in self.contexts and (self.repeats or request.target not in seen):
            ranks: dict[str, float] = {}
            for age, context in self.contexts[n].items():
                read = read_list(request, context, seen, self.repeats)
                ranks |= self._backbone_ranks(snapshot, age, read)
                if n in self.in_sample:
                    ranks |= self._final_list_ranks(snapshot, age, read)
            self._record(snapshot, request, n, ranks)
        return {}

    def _backbone_ranks(self, snapshot: CatalogSnapshot, age: str, read: "ListRead") -> dict[str, float]:
        """The target's rank in the backbone-only order of each variant."""
        ranks: dict[str, float] = {}
        for name, variant in self.variants.items():
            if variant.ranks_backbone:
                score_V = np.where(snapshot.titles.candidate_V, self._scores(variant, read.context), -np.inf)
                ranks |= _keyed(name, BACKBONE_ONLY, age, backbone_ranks(score_V, read))
        return ranks

    def _final_list_ranks(self, snapshot: CatalogSnapshot, age: str, read: "ListRead") -> dict[str, float]:
        """The target's rank in the final list of each variant, made for the horizon at which it will be read."""
        context = read.context
        query = user_query(snapshot.stream_state, context.history, context.made_at, context.missed)
        user = candidates.user_signals(snapshot, query)
        text = candidates.text_scores(snapshot, [context.history])[0]
        ranks: dict[str, float] = {}
        for name, variant in self.variants.items():
            pipeline, horizon = variant.pipeline, horizon_for(variant.horizons, context.missed)
            delayed = user._replace(query=query._replace(horizon=horizon))
            scores = Scores(pipeline.static, text, AllScores(self._scores(variant, context)))
            no_rows = np.zeros(0, np.int64)
            found = candidates.generate_candidates(
                snapshot, pipeline.ranker, delayed, scores, read.blocked, pipeline.shortlist, no_rows
            )
            ranks |= _keyed(name, FINAL_LISTS, age, final_list_ranks(found, pipeline.ranker, read))
        return ranks

    def _scores(self, variant: Variant, context: ListContext) -> NDArray[np.float32]:
        """The backbone's scores of all titles for the list that is read."""
        horizons, at = variant.backbone.settings.network.horizons, self.context_index[_key(context)]
        horizon = horizons.index(horizon_for(horizons, horizon_for(variant.horizons, context.missed)))
        score_1V = variant.backbone.scores(self.hidden_SD[id(variant.backbone)][at : at + 1], horizon)
        return np.asarray(score_1V[0])

    def _record(self, snapshot: CatalogSnapshot, request: RankingRequest, n: int, ranks: Mapping[str, float]) -> None:
        event = uncounted_event(snapshot, request)
        times_L = request.history.times_L
        self.gap_hours.append((request.now - int(times_L[-1])) / HOUR_MS if len(times_L) else NOT_RANKED)
        for record in (self.recorded, self.sampled) if n in self.in_sample else (self.recorded,):
            record.add(event, {key: ranks.get(key, NOT_RANKED) for key in record.ranks})
        if n in self.in_sample:
            for age, missed in self.missed.items():
                missed.append(self.contexts[n][age].missed)
                self.empty[age].append(not len(self.contexts[n][age].history.rows_L))

    def _keys(self, ages: Iterable[str], orders: Iterable[str]) -> Iterator[str]:
        """All keys of a record; every event has all of them, ranked or not."""
        for age, order, (name, variant) in product(ages, orders, self.variants.items()):
            if variant.ranks_backbone or order != BACKBONE_ONLY:
                yield from (ranking_key(name, order, age, filter_) for filter_ in FILTERS)


def uncounted_event(snapshot: CatalogSnapshot, request: RankingRequest) -> RankedEvent:
    """The event of a request, before it is counted, without ranks."""
    user, stream_state = request.history.user, snapshot.stream_state
    title_events = int(stream_state.user_store.interactions.title_count_V[request.target])
    title, user_events = stream_state.catalog.ids[request.target], stream_state.user_store.event_count(user)
    return RankedEvent(user, title, request.now, title_events, user_events, {})


def _contexts(request: RankingRequest, in_sample: bool) -> Iterator[tuple[str, ListContext]]:
    """The contexts to evaluate. In events: all ages or none, so that every age has the same events."""
    history = request.history
    if len(history.rows_L) > EVENT_AGES[-1]:
        yield from ((event_age_label(k), events_ago(history, k)) for k in EVENT_AGES)
    if in_sample:
        yield from ((hour_age_label(hours), hours_ago(history, request.now, hours)) for hours in HOUR_AGES)


def _key(context: ListContext) -> tuple[str, int, int]:
    return context.history.user, len(context.history.rows_L), context.made_at


def _interactions(history: History) -> NDArray[np.int64]:
    """The titles that count as seen; an impression or a dislike does not make a title seen."""
    return history.rows_L[(history.rows_L >= 0) & (_WEIGHTS[history.actions_L] > 0)]


class ListRead(NamedTuple):
    """A list and the moment at which it is read."""

    target: int
    context: ListContext
    blocked: NDArray[np.int32]  # titles excluded when the list was made
    since: NDArray[np.int32]  # titles that the user interacted with since


def read_list(request: RankingRequest, context: ListContext, seen: NDArray[np.int32], repeats: bool) -> ListRead:
    """A list made from `context` and read at the time of the request; `seen`: titles the user has seen by then."""
    nothing = np.zeros(0, np.int32)
    if repeats:
        return ListRead(request.target, context, nothing, nothing)
    since = np.setdiff1d(_interactions(request.history), _interactions(context.history)).astype(np.int32)
    return ListRead(request.target, context, np.setdiff1d(seen[seen >= 0], since), since)


def _keyed(variant: str, order: str, age: str, ranks: tuple[float, float]) -> dict[str, float]:
    return {ranking_key(variant, order, age, filter_): rank for filter_, rank in zip(FILTERS, ranks, strict=True)}


def backbone_ranks(score_V: NDArray[np.floating[Any]], read: ListRead) -> tuple[float, float]:
    """The target's rank by these scores, filtered and unfiltered. Changes `score_V`."""
    score_V[read.blocked] = -np.inf
    unfiltered = average_rank(score_V, read.target)
    score_V[read.since] = -np.inf
    return average_rank(score_V, read.target), unfiltered


def final_list_ranks(found: candidates.Candidates, ranker: Ranker, read: ListRead) -> tuple[float, float]:
    """The target's rank in the final list, filtered and unfiltered: by the ranker within the shortlist, by the linear
    score behind it."""
    rows_C, score_C = found.rows_C[: found.shortlist_size], np.zeros(0, np.float32)
    place, since_C = np.flatnonzero(rows_C == read.target), np.isin(rows_C, read.since)
    if len(place):
        score_C = ranker.score(found.signals_CF[: found.shortlist_size])
        unfiltered = average_rank(score_C, int(place[0]))
        return average_rank(np.where(since_C, -np.inf, score_C), int(place[0])), unfiltered
    unfiltered = max(found.rank(read.target), found.shortlist_size + 1.0)
    return max(found.rank(read.target, read.since), found.shortlist_size - int(since_C.sum()) + 1.0), unfiltered
