"""What comparisons are made of: a stream ranked by several contenders at once, each scored event kept.

All contenders of a run share one memory and one stream, so that they meet the same questions, and differences between
two of them are differences event by event (`model.metrics.bootstrap`). A contender is watched: how the true title stood by the
backbone's score alone, and how much processor time was its own.

N scored events
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import DataSet
from infra.errors import SettingsError
from infra.experiments.evaluate import UNCOUNTED, micro_batches
from model.actions import WEIGHTS
from model.learner import Learner, LearnerSettings, RankedEvent, UserUpdate, new_pipeline
from model.metrics import bootstrap
from model.metrics.baselines import Baselines
from model.metrics.popularity_buckets import BUCKETS, bucket_of
from model.metrics.ranking import NEW_TITLE, NEW_USER, SLICES, average_rank
from model.pipeline import RankingPipeline, RankingRequest, RankResult
from model.signals.candidates import CatalogSnapshot
from model.state.stream_state import TitleMetadata
from streaming.records import HISTORY, action_code

ALONE: Final = " alone"  # after a contender's name: the order of its backbone's score over all candidates
POINTS: Final = 24  # of a curve
EVERY: Final = 10.0  # seconds between two lines of progress

Batch = list[TitleMetadata | UserUpdate]
Say = Callable[[str], None]
Before = Callable[[int, Batch], None]  # events done, what comes next
Parts = Mapping[str, NDArray[np.bool_]]  # by name, which scored events


class Instrumented(RankingPipeline):
    """A contender whose backbone's own ranks and seconds are told. `shared_backbone`: another whose backbone's scores it reads,
    instead of having one. `delayed` false: its ranker learns nothing from delayed questions."""

    alone: list[float]
    seconds: float
    shared_backbone: RankingPipeline | None
    delayed: bool
    repeats: bool

    @classmethod
    def of(
        cls,
        pipeline: RankingPipeline,
        repeats: bool = False,
        shared_backbone: RankingPipeline | None = None,
        delayed: bool = True,
    ) -> Self:
        """The same contender, watched."""
        made = cls.__new__(cls)
        vars(made).update(vars(pipeline))
        made.alone, made.seconds, made.shared_backbone, made.delayed, made.repeats = (
            [],
            0.0,
            shared_backbone,
            delayed,
            repeats,
        )
        return made

    def prepare(self, snapshot: CatalogSnapshot, *rest: Any, **named: Any) -> None:
        self.alone = []  # of this micro-batch; a new list, for a frozen copy had the old one too
        began = time.process_time()
        super().prepare(snapshot, *rest, **named)
        if self.shared_backbone is not None:
            self.backbone_NV = self.shared_backbone.backbone_NV
        self.seconds += time.process_time() - began

    def rank(self, snapshot: CatalogSnapshot, request: RankingRequest, n: int, *rest: Any, **named: Any) -> RankResult:
        if request.delay and not self.delayed:
            return RankResult(0.0, np.zeros(0, np.int64))
        began = time.process_time()
        standing = super().rank(snapshot, request, n, *rest, **named)
        self.seconds += time.process_time() - began
        if self.sequence is not None and not request.delay:
            self.alone.append(rank_by(self.backbone_NV[n], snapshot, request, self.repeats))
        return standing

    def told(self, place: int) -> dict[str, float]:
        """What is told of the micro-batch's event at `place`, by what follows the name."""
        return {ALONE: self.alone[place]} if self.alone else {}

    def learn(self, snapshot: CatalogSnapshot, *rest: Any, **named: Any) -> dict[str, float]:
        began = time.process_time()
        losses = super().learn(snapshot, *rest, **named)
        self.seconds += time.process_time() - began
        return losses


def rank_by(score_V: NDArray[np.float32], snapshot: CatalogSnapshot, request: RankingRequest, repeats: bool) -> float:
    """The target's rank among all candidates by these scores alone; what the user has seen competes where `repeats`."""
    open_V = np.where(snapshot.titles.candidate_V, score_V, -np.inf)
    if not repeats:
        seen = snapshot.stream_state.user_store.seen_by(request.history.user)
        open_V[seen[seen >= 0]] = -np.inf
    return average_rank(open_V, request.target)


def watched(settings: LearnerSettings, backbone: bool = True, **options: Any) -> Instrumented:
    """A new contender."""
    return Instrumented.of(new_pipeline(settings, backbone), settings.repeats, **options)


class Recorded:
    """Scored events in order: who, what and when, how often title and user had been met, and the rank by ranking."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.titles: list[str] = []
        self.times: list[int] = []  # ms
        self.title_events: list[int] = []
        self.user_events: list[int] = []
        self.ranks: dict[str, list[float]] = {}

    def __len__(self) -> int:
        return len(self.users)

    def add(self, event: RankedEvent, ranks: Mapping[str, float]) -> None:
        """Keep one event; every event has the same rankings."""
        self.users.append(event.user)
        self.titles.append(event.title)
        self.times.append(event.ts)
        self.title_events.append(event.title_events)
        self.user_events.append(event.user_events)
        for name, rank in ranks.items():
            self.ranks.setdefault(name, []).append(rank)

    def reciprocal(self, name: str) -> NDArray[np.float64]:
        """1 / rank by event."""
        return 1 / np.array(self.ranks[name], np.float64)

    def slices(self) -> dict[str, NDArray[np.bool_]]:
        """Which events each of SLICES holds."""
        title_N, user_N = np.array(self.title_events), np.array(self.user_events)
        return dict(zip(SLICES, (title_N >= 0, title_N < NEW_TITLE, title_N == 0, user_N < NEW_USER), strict=True))

    def ages(self) -> dict[str, NDArray[np.bool_]]:
        """Which events each of AGES holds, by the title's events before."""
        age_N = bucket_of(np.array(self.title_events, np.int64))
        return {age: age_N == place for place, age in enumerate(BUCKETS)}

    def mrr(self, name: str, parts: Parts | None = None) -> dict[str, float | None]:
        """By slice, or by the parts given; None where nothing was scored."""
        return self._means(self.reciprocal(name), parts)

    def hr10(self, name: str, parts: Parts | None = None) -> dict[str, float | None]:
        """The share of ranks up to 10, likewise."""
        return self._means(np.array(self.ranks[name]) <= 10, parts)

    def _means(self, value_N: NDArray[Any], parts: Parts | None) -> dict[str, float | None]:
        parts = self.slices() if parts is None else parts
        return {of: float(value_N[inside].mean()) if inside.any() else None for of, inside in parts.items()}

    def gain(self, name: str, rival: str, parts: Parts | None = None) -> dict[str, dict[str, float] | None]:
        """The paired difference in MRR by slice, or by the parts given, with its interval by users."""
        rank_N, rival_N, user_N = np.array(self.ranks[name]), np.array(self.ranks[rival]), np.array(self.users)
        found = {
            of: bootstrap.difference(rank_N[inside], rival_N[inside], user_N[inside])
            for of, inside in (self.slices() if parts is None else parts).items()
        }
        return {of: None if one is None else one._asdict() for of, one in found.items()}

    def curve(self, names: Sequence[str] | None = None, points: int = POINTS) -> dict[str, list[float]]:
        """MRR of each stretch of the scored events, by ranking, and `events`: where each stretch ends."""
        bounds = np.linspace(0, len(self), min(points, len(self)) + 1).astype(int)
        lines = {"events": bounds[1:].astype(float).tolist()}
        for name in self.ranks if names is None else names:
            total_N = np.concatenate([[0.0], np.cumsum(self.reciprocal(name))])
            lines[name] = (np.diff(total_N[bounds]) / np.diff(bounds)).tolist()
        return lines


def stream(
    data: DataSet,
    encode: Encoder,
    learner: Learner,
    say: Say,
    baselines: Baselines | None = None,
    before: Before | None = None,
    history: int = HISTORY,
    first: int | None = None,
) -> Recorded:
    """Every event ranked, then learned; the first fifth is not kept, or those before `first`. With `baselines`, their
    rankings beside the contenders'."""
    repeats = learner.settings.repeats
    seen = Baselines(repeats=repeats) if baselines is None else baselines
    first = int(len(data) * UNCOUNTED) if first is None else first
    recorded, done = Recorded(), 0
    progress = ProgressPrinter(len(data), say)
    for batch in micro_batches(data, encode, history):
        for title in batch:
            if isinstance(title, TitleMetadata):
                seen.launch(title.title)
        if before is not None:
            before(done, batch)
        for place, event in enumerate(learner.observe(batch).ranked):
            if done >= first and not seen.has_seen(event.user, event.title):
                ranks = event.ranks | alone(learner.pipelines, place)
                if baselines is not None:
                    ranks |= baselines.rank(event.user, event.title, event.ts)
                recorded.add(event, ranks)
            seen.count(event.user, event.title, event.ts)
            done += 1
        progress(done, recorded)
    return recorded


def alone(pipelines: Mapping[str, RankingPipeline], place: int) -> dict[str, float]:
    """What contenders that are watched tell of the micro-batch's event at `place`: ranks by backbones alone, mostly."""
    watching = ((name, one) for name, one in pipelines.items() if isinstance(one, Instrumented))
    return {name + of: rank for name, one in watching for of, rank in one.told(place).items()}


def scored(recorded: Recorded) -> Recorded:
    """The same. Raises SettingsError where it holds nothing that could be told."""
    if not len(recorded):
        raise SettingsError(
            "Nothing was scored: no event after those that are learned first is of a title new to its viewer. Give "
            "more events, or --repeats where people come back to the same title."
        )
    return recorded


def actions(data: DataSet, recorded: Recorded) -> NDArray[np.int64]:
    """code_N: what was done. Where one viewer does several things with a title at one moment, each stands for itself,
    in their order."""
    codes: defaultdict[tuple[str, str, int], deque[int]] = defaultdict(deque)
    for event in map(data.event, range(len(data))):
        code = action_code(event)
        if WEIGHTS[code] > 0:  # others are not ranked
            codes[event.user, event.title, event.ts].append(code)
    met = zip(recorded.users, recorded.titles, recorded.times, strict=True)
    return np.array([codes[key].popleft() for key in met], np.int64)


def head(data: DataSet, recorded: Recorded) -> dict[str, Any]:
    """What a report begins with: what was asked of how many."""
    size = {"events": len(data), "scored": len(recorded), "users": len(set(recorded.users))}
    return {"data": data.name, "simulated": data.simulated, **size}


class ProgressPrinter:
    """A line every few seconds: how far, how long still, MRR so far."""

    def __init__(self, whole: int, say: Say) -> None:
        self.whole, self.say = whole, say
        self.began = self.shown = time.monotonic()

    def __call__(self, done: int, recorded: Recorded) -> None:
        now = time.monotonic()
        if now - self.shown < EVERY and done < self.whole:
            return
        self.shown = now
        left = (now - self.began) / max(done, 1) * (self.whole - done)
        known = "  ".join(f"{name} {recorded.reciprocal(name).mean():.4f}" for name in self._named(recorded))
        self.say(f"{done:>9,} of {self.whole:,}  {left:>5.0f} s left  {known}")

    def _named(self, recorded: Recorded) -> Iterator[str]:
        yield from list(recorded.ranks)[:3]
