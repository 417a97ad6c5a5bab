"""Asks contenders what an older list would have been worth: one made when its viewer was known up to some events ago,
or some hours ago, and no further.

A list of `k` events ago is made from the history without the last `k` events, at the time of the last one known, as
`publish` makes it when an event comes. A list of `h` hours ago is made from what is older than that, at that time. Only
the viewer's own events are old: weights and counters are those of now, so that what is told is what knowing less of the
viewer costs. Those have learned from the events that the list misses as from everybody's, never from the one asked for.

The reader picks one of a contender's lists by how many events have passed (`streaming.stores.redis_lists.read`): that of the
longest horizon that is no longer. What the viewer had seen when it was made is not in it; what they took since is left
out at reading, or it is not.

S lists to be made · D width · V titles · C candidates
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from infra.experiments.harness import ALONE, Instrumented, Recorded
from model.actions import WEIGHTS
from model.learner import LearnerSettings, RankedEvent
from model.metrics.ranking import average_rank
from model.pipeline import RankingPipeline, RankingRequest, RankResult
from model.sequence.model import SequenceModel
from model.signals import candidates
from model.signals.candidates import CatalogSnapshot
from model.signals.gather import gather
from model.signals.ranker import Ranker
from model.state.stream_state import History

EVENTS: Final = (0, 1, 2, 5, 10, 20)  # ages of a list
HOURS: Final = (0, 1, 6, 12, 24, 48)
HOUR: Final = 3_600_000  # ms
FILTERED, LEFT = "without what was taken since", "with what was taken since"
FILTERS: Final = (FILTERED, LEFT)
ORDERS: Final = {ALONE: "the backbone alone", "": "the final lists"}
UNASKED: Final = float("nan")

_WEIGHTS: Final = np.array(WEIGHTS)


class Known(NamedTuple):
    """What a list was made from: the history then, when that was, and how many events its viewer has had since."""

    history: History
    now: int  # ms
    missed: int


def events_ago(history: History, k: int) -> Known:
    """As of the last event but `k`, which there must be, at its time."""
    known = history.before(len(history.rows_L) - k)
    return Known(known, int(known.times_L[-1]), k)


def hours_ago(history: History, now: int, hours: int) -> Known:
    """As of `hours` before `now`; an event of that very moment is known."""
    then = now - hours * HOUR
    known = int(np.searchsorted(history.times_L, then, "right"))
    return Known(history.before(known), then, len(history.times_L) - known)


def read_by(horizons: Sequence[int], missed: int) -> int:
    """The horizon whose list a reader takes after so many events."""
    return max(horizon for horizon in horizons if horizon <= missed)


def ranking(way: str, order: str, age: str, kept: str) -> str:
    """What the ranks of one way, order (of ORDERS), age and filter are recorded as."""
    return f"{way}{order} | {age} | {kept}"


def events_age(k: int) -> str:
    return f"{k} events"


def hours_age(hours: int) -> str:
    return f"{hours} hours"


class Aging(Instrumented):
    """Watched; its ranker may learn from delays that its backbone has no horizon of: it reads the nearest shorter."""

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:  # type: ignore[override]
        super().prepare(snapshot, histories, requests)
        if self.sequence is None:
            return
        horizons = self.sequence.settings.network.horizons
        for delay in sorted({request.delay for request in requests} - set(horizons)):
            late = [n for n, request in enumerate(requests) if request.delay == delay]
            hidden_ND = self.sequence.now([requests[n].history for n in late], [requests[n].now for n in late])
            self.backbone_NV[late] = self.sequence.scores(hidden_ND, horizons.index(read_by(horizons, delay)))


@dataclass(frozen=True)
class Variant:
    """A way to serve: whose ranker reads which backbone, the horizons that there are lists of, and whether the
    backbone's own order is told too."""

    pipeline: RankingPipeline
    backbone: SequenceModel
    horizons: tuple[int, ...] = (0,)
    alone: bool = True


class StaleListEvaluation(RankingPipeline):
    """Asks the ways about every event from `first` on; hours and final lists, which cost most, about one in `every`. It
    stands last in a learner: the contenders before it are ready then, and their question is answered. `recorded`: the
    backbones by events ago, of all; `sampled`: everything, of one in `every`."""

    def __init__(self, settings: LearnerSettings, ways: Mapping[str, Variant], first: int, every: int) -> None:
        super().__init__(Ranker(replace(settings.ranker, buffer=1)), None, learns=False)
        self.ways, self.first, self.every, self.repeats = ways, first, every, settings.repeats
        self.recorded, self.sampled, self.done = Recorded(), Recorded(), 0
        self.recorded.ranks = {name: [] for name in self._rankings(map(events_age, EVENTS), [ALONE])}
        ages = (*map(events_age, EVENTS), *map(hours_age, HOURS))
        self.sampled.ranks = {name: [] for name in self._rankings(ages, ORDERS)}
        self.gaps: list[float] = []  # hours since the viewer's event before, of each that is recorded
        self.missed: dict[str, list[int]] = {hours_age(hours): [] for hours in HOURS}  # events, of each in `sampled`
        self.unknown: dict[str, list[bool]] = {age: [] for age in self.missed}  # nothing was known then

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        """Encode what each list was made from, once, at however many events it is read."""
        self.ages: dict[int, dict[str, Known]] = {}  # by the question's place
        self.whole: set[int] = set()  # of these final lists and hours too
        for n, request in enumerate(requests):
            if request.delay:
                continue
            if self.done >= self.first:
                if self.done % self.every == 0:
                    self.whole.add(n)
                self.ages[n] = dict(_ages(request, n in self.whole))
            self.done += 1
        states = {_key(known): known for by_age in self.ages.values() for known in by_age.values()}
        self.place = {key: place for place, key in enumerate(states)}
        known_pasts, times = [one.history for one in states.values()], [one.now for one in states.values()]
        backbones = {id(way.backbone): way.backbone for way in self.ways.values()}
        self.hidden_SD: dict[int, Tensor] = {
            key: backbone.now(known_pasts, times) for key, backbone in backbones.items() if states
        }

    def rank(self, snapshot: CatalogSnapshot, request: RankingRequest, n: int, *_: object) -> RankResult:  # type: ignore[override]
        seen = snapshot.stream_state.user_store.seen_by(request.history.user)
        if n in self.ages and (self.repeats or request.target not in seen):
            ranks: dict[str, float] = {}
            for age, known in self.ages[n].items():
                read = reading(request, known, seen, self.repeats)
                ranks |= self._alone(snapshot, age, read)
                if n in self.whole:
                    ranks |= self._final(snapshot, age, read)
            self._record(snapshot, request, n, ranks)
        return RankResult(UNASKED, np.zeros(0, np.int64))

    def _alone(self, snapshot: CatalogSnapshot, age: str, read: "ListRead") -> dict[str, float]:
        """The target's rank by the backbones."""
        ranks: dict[str, float] = {}
        for name, way in self.ways.items():
            if way.alone:
                score_V = np.where(snapshot.titles.candidate_V, self._scores(way, read.known), -np.inf)
                ranks |= _named(name, ALONE, age, alone_ranks(score_V, read))
        return ranks

    def _final(self, snapshot: CatalogSnapshot, age: str, read: "ListRead") -> dict[str, float]:
        """The target's rank in the final lists; a horizon's is made as one that will be read so late."""
        known = read.known
        asked = snapshot.stream_state.query(known.history, known.now, known.missed)
        gather(asked, snapshot.titles, snapshot.stream_state.counters, snapshot.scratch)
        text_V = candidates.text_scores(snapshot, [known.history])[0]
        ranks: dict[str, float] = {}
        for name, way in self.ways.items():
            one, late = way.pipeline, asked._replace(delay=read_by(way.horizons, known.missed))
            scores = text_V, self._scores(way, known), one.static_V
            nothing = np.zeros(0, np.int64)
            found = candidates.find(
                snapshot, one.ranker, late, known.history, *scores, read.blocked, one.shortlist, nothing
            )
            ranks |= _named(name, "", age, final_ranks(found, one.ranker, read))
        return ranks

    def _scores(self, way: Variant, known: Known) -> NDArray[np.float32]:
        """The backbone's scores of all titles for the list that is read."""
        horizons, at = way.backbone.settings.network.horizons, self.place[_key(known)]
        own = horizons.index(read_by(horizons, read_by(way.horizons, known.missed)))
        score_1V = way.backbone.scores(self.hidden_SD[id(way.backbone)][at : at + 1], own)
        return np.asarray(score_1V[0])

    def _record(self, snapshot: CatalogSnapshot, request: RankingRequest, n: int, ranks: Mapping[str, float]) -> None:
        user, stream_state = request.history.user, snapshot.stream_state
        before = int(stream_state.catalog.count_V[request.target]), stream_state.user_store.count(user)
        event = RankedEvent(user, stream_state.catalog.ids[request.target], request.now, *before, {})
        times_L = request.history.times_L
        self.gaps.append((request.now - int(times_L[-1])) / HOUR if len(times_L) else UNASKED)
        for record in (self.recorded, self.sampled) if n in self.whole else (self.recorded,):
            record.add(event, {name: ranks.get(name, UNASKED) for name in record.ranks})
        if n in self.whole:
            for age, missed in self.missed.items():
                missed.append(self.ages[n][age].missed)
                self.unknown[age].append(not len(self.ages[n][age].history.rows_L))

    def _rankings(self, ages: Iterable[str], orders: Iterable[str]) -> Iterator[str]:
        """What a record holds: each of its events has all of them, asked or not."""
        for age, order, (name, way) in product(ages, orders, self.ways.items()):
            if way.alone or order != ALONE:
                yield from (ranking(name, order, age, kept) for kept in FILTERS)


def _ages(request: RankingRequest, whole: bool) -> Iterator[tuple[str, Known]]:
    """The lists that are asked for; of events, all ages or none, so that each age has the same events."""
    history = request.history
    if len(history.rows_L) > EVENTS[-1]:
        yield from ((events_age(k), events_ago(history, k)) for k in EVENTS)
    if whole:
        yield from ((hours_age(hours), hours_ago(history, request.now, hours)) for hours in HOURS)


def _key(known: Known) -> tuple[str, int, int]:
    return known.history.user, len(known.history.rows_L), known.now


def _taken(history: History) -> NDArray[np.int64]:
    """What the viewer took; what was merely shown, or disliked, is seen nowhere else either."""
    return history.rows_L[(history.rows_L >= 0) & (_WEIGHTS[history.actions_L] > 0)]


class ListRead(NamedTuple):
    """A list that is read: what it was made from, what was left out then, and what its viewer took since."""

    target: int
    known: Known
    blocked: NDArray[np.int32]
    since: NDArray[np.int32]


def reading(request: RankingRequest, known: Known, seen: NDArray[np.int32], repeats: bool) -> ListRead:
    """A list made from what was known, read when the question is asked; `seen`: by its viewer until then."""
    nothing = np.zeros(0, np.int32)
    if repeats:
        return ListRead(request.target, known, nothing, nothing)
    since = np.setdiff1d(_taken(request.history), _taken(known.history)).astype(np.int32)
    return ListRead(request.target, known, np.setdiff1d(seen[seen >= 0], since), since)


def _named(way: str, order: str, age: str, pair: tuple[float, float]) -> dict[str, float]:
    return {ranking(way, order, age, kept): rank for kept, rank in zip(FILTERS, pair, strict=True)}


def alone_ranks(score_V: NDArray[np.floating[Any]], read: ListRead) -> tuple[float, float]:
    """The target's rank by these scores, without and with what was taken since; writes into `score_V`."""
    score_V[read.blocked] = -np.inf
    left = average_rank(score_V, read.target)
    score_V[read.since] = -np.inf
    return average_rank(score_V, read.target), left


def final_ranks(found: candidates.Candidates, ranker: Ranker, read: ListRead) -> tuple[float, float]:
    """The target's rank in the ranker's order of the shortlist, without and with what was taken since; behind it, by
    the linear score."""
    rows_C, score_C = found.rows_C[: found.listed], np.zeros(0, np.float32)
    place, gone_C = np.flatnonzero(rows_C == read.target), np.isin(rows_C, read.since)
    if len(place):
        score_C = ranker.score(found.signals_CF[: found.listed])
        left = average_rank(score_C, int(place[0]))
        return average_rank(np.where(gone_C, -np.inf, score_C), int(place[0])), left
    left = max(average_rank(found.score_V, read.target), found.listed + 1.0)
    found.score_V[read.since] = -np.inf
    return max(average_rank(found.score_V, read.target), found.listed - int(gone_C.sum()) + 1.0), left
