"""`premiere scaling`: how quality grows with the size of the backbone, task by task, and where bigger is not worth it.

All sizes learn from one stream in one run: the same memory, micro-batches, questions and learning rate, and nothing but
the backbone's width, blocks and heads differs. A size is several runs that differ in their seed, since two seeds of one
size can be further apart than two sizes; intervals are over users and seeds drawn again. Each task is told twice, by
the backbone's own order and by the final lists, whose ranker reads counters and texts as well; beside the lists, those
of the ranker without a backbone. The laws are those of `model.metrics.scaling_law`.
Source: arXiv 2605.23312 (one stream, one split, only the backbone differs; MRR per task).

N scored events · C contenders · S sizes · K seeds · D draws
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import DataSet
from infra.errors import SettingsError
from infra.experiments.evaluate import UNCOUNTED
from infra.experiments.flops import parameters
from infra.experiments.harness import ALONE, Instrumented, Recorded, Say, actions, head, scored, stream, watched
from infra.experiments.stale_lists import Known, ListRead, alone_ranks, events_ago, final_ranks, reading
from infra.experiments.verdicts import FEW
from infra.run.learn import numerics
from model.learner import Learner, LearnerSettings, RankedEvent
from model.metrics import bootstrap
from model.metrics.ranking import NEW_TITLE
from model.metrics.scaling_law import FEWEST, law, over_seeds
from model.pipeline import RankingPipeline, RankingRequest, RankResult
from model.sequence.backbone import PRESETS, Dims
from model.sequence.tasks import LIKED
from model.signals import candidates
from model.signals.candidates import CatalogSnapshot
from model.signals.gather import gather
from model.signals.ranker import Ranker
from model.state.stream_state import History

DEFAULT: Final = ("16x1", "32x1", "64x2", "96x3", "128x4", "2m")
WITHOUT: Final = "no backbone"
LATER: Final = "later"
EVERY: Final = 4  # of so many events one is asked late too
GENRES: Final = 3  # the most frequent ones
LEAST: Final = 100  # events of a task
DRAWS: Final = 500
ORDERS: Final = {"alone": ALONE, "lists": ""}


def dims(name: str) -> Dims:
    """A size by its name: that of a preset, or WIDTHxBLOCKS, a head for each 32 of its width. Raises SettingsError."""
    if name in PRESETS:
        return PRESETS[name]
    width, _, blocks = name.partition("x")
    if not (width.isdecimal() and blocks.isdecimal() and int(width) and int(blocks)):
        sizes = ", ".join(PRESETS)
        raise SettingsError(f"{name!r} is no size: give WIDTHxBLOCKS, as in 64x2, or one of {sizes}.")
    heads = max(1, int(width) // 32)
    if int(width) % heads:
        raise SettingsError(f"{name!r}: a width beyond 32 must be a multiple of its {heads} heads.")
    return Dims(int(width), int(blocks), heads)


def sized(settings: LearnerSettings, size: Dims) -> LearnerSettings:
    """The same settings with a backbone of that size."""
    network = replace(settings.sequence.network, **asdict(size))
    return replace(settings, sequence=replace(settings.sequence, network=network))


def sweep(names: Sequence[str], settings: LearnerSettings) -> dict[str, LearnerSettings]:
    """The settings of each size, smallest first. Raises SettingsError where they are too few to fit."""
    sizes = {name: sized(settings, dims(name)) for name in names}
    count = {name: parameters(one.sequence.network) for name, one in sizes.items()}
    if len(set(count.values())) < max(FEWEST, len(names)):
        raise SettingsError(
            f"A law of three constants wants {FEWEST} sizes or more, each but once: {', '.join(names)}."
        )
    return {name: sizes[name] for name in sorted(sizes, key=count.__getitem__)}


class DelayedEvaluation(RankingPipeline):
    """Asks those who are watched for what comes after the next `delay` events, about one event in EVERY: as a list made
    that many events ago is read, less what was taken since (`infra.experiments.stale_lists`). It stands last in a learner, when
    the others are ready and their question is answered. Nobody learns from it."""

    def __init__(self, settings: LearnerSettings, watching: Mapping[str, Instrumented], first: int) -> None:
        super().__init__(Ranker(replace(settings.ranker, buffer=1)), None, learns=False)
        self.watching, self.first, self.repeats = watching, first, settings.repeats
        self.delay = settings.sequence.network.horizons[-1]
        self.recorded, self.done = Recorded(), 0

    def prepare(
        self, snapshot: CatalogSnapshot, _histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        self.late: dict[int, Known] = {}  # by the question's place
        for n, request in enumerate(requests):
            if request.delay:
                continue
            if self.done >= self.first and self.done % EVERY == 0 and 0 < self.delay < request.event_index:
                self.late[n] = events_ago(request.history, self.delay)
            self.done += 1
        asked = list(self.late.values())
        self.late_NV = {name: _late(one, asked, snapshot) for name, one in self.watching.items() if asked}

    def rank(self, snapshot: CatalogSnapshot, request: RankingRequest, n: int, *_: Any) -> RankResult:
        seen = snapshot.stream_state.user_store.seen_by(request.history.user)
        if n in self.late and (self.repeats or request.target not in seen):
            user, stream_state = request.history.user, snapshot.stream_state
            before = int(stream_state.catalog.count_V[request.target]), stream_state.user_store.count(user)
            event = RankedEvent(user, stream_state.catalog.ids[request.target], request.now, *before, {})
            read = reading(request, self.late[n], seen, self.repeats)
            self.recorded.add(event, self._ranks(snapshot, read, list(self.late).index(n)))
        return RankResult(np.nan, np.zeros(0, np.int64))

    def _ranks(self, snapshot: CatalogSnapshot, read: ListRead, place: int) -> dict[str, float]:
        history, now, missed = read.known
        asked = snapshot.stream_state.query(history, now, missed)
        gather(asked, snapshot.titles, snapshot.stream_state.counters, snapshot.scratch)
        text_V, nothing = candidates.text_scores(snapshot, [history])[0], np.zeros(0, np.int64)
        ranks: dict[str, float] = {}
        for name, one in self.watching.items():
            scores = text_V, self.late_NV[name][place], one.static_V
            found = candidates.find(snapshot, one.ranker, asked, history, *scores, read.blocked, one.shortlist, nothing)
            ranks[name], _ = final_ranks(found, one.ranker, read)
            if one.sequence is not None:
                score_V = np.where(snapshot.titles.candidate_V, self.late_NV[name][place], -np.inf)
                ranks[name + ALONE], _ = alone_ranks(score_V, read)
        return ranks


def _late(one: Instrumented, asked: Sequence[Known], snapshot: CatalogSnapshot) -> NDArray[np.float32]:
    """The scores of these lists by the last horizon; zero without a backbone."""
    if one.sequence is None:
        return np.zeros((len(asked), len(snapshot.titles.candidate_V)), np.float32)
    hidden_ND = one.sequence.now([known.history for known in asked], [known.now for known in asked])
    return one.sequence.scores(hidden_ND, len(one.sequence.settings.network.horizons) - 1)


def report(
    data: DataSet, encode: Encoder, settings: LearnerSettings, say: Say, names: Sequence[str] = (), seeds: int = 3
) -> dict[str, Any]:
    """By task and order: MRR by size, both laws, and what the largest gains. Raises SettingsError."""
    numerics(1)
    sizes = sweep(names or DEFAULT, settings)
    watching = {
        f"{name} {k}": watched(replace(of, seed=settings.seed + k)) for name, of in sizes.items() for k in range(seeds)
    }
    watching[WITHOUT] = watched(settings, backbone=False)
    later = DelayedEvaluation(settings, watching, int(len(data) * UNCOUNTED))
    recorded = scored(stream(data, encode, Learner(settings, {**watching, LATER: later}), say))
    network = settings.sequence.network
    return {
        **head(data, recorded),
        "settings": asdict(settings),
        "seeds": seeds,
        "as_set": next((name for name, of in sizes.items() if of.sequence.network == network), None),
        "sizes": {
            name: {
                "parameters": parameters(of.sequence.network),
                "heads": of.sequence.network.heads,
                "seconds": sum(watching[f"{name} {k}"].seconds for k in range(seeds)) / seeds,
            }
            for name, of in sizes.items()
        },
        "seconds_without": watching[WITHOUT].seconds,
        "tasks": _by_task(data, recorded, later, sizes, seeds),
    }


def _by_task(
    data: DataSet, recorded: Recorded, later: DelayedEvaluation, sizes: Mapping[str, LearnerSettings], seeds: int
) -> dict[str, Any]:
    """What is found of each task that has enough events and users."""
    of_late = {f"after the next {later.delay} events": np.ones(len(later.recorded), bool)} if later.delay else {}
    asked = [(recorded, tasks(data, recorded)), (later.recorded, of_late)]
    found: dict[str, Any] = {}
    n_S = np.array([parameters(of.sequence.network) for of in sizes.values()], float)
    for record, parts in asked:
        for task, inside_N in parts.items():
            user_N = np.array(record.users)[inside_N]
            if len(user_N) < LEAST or len(set(user_N.tolist())) < FEW:
                continue
            orders = {order: _found(record, inside_N, list(sizes), seeds, of, n_S) for order, of in ORDERS.items()}
            found[task] = {"events": len(user_N), "users": len(set(user_N.tolist())), **orders}
    return found


def tasks(data: DataSet, recorded: Recorded) -> dict[str, NDArray[np.bool_]]:
    """Which scored events each task holds: all, by what was done, by genre, and new titles."""
    parts = {"the next event": np.ones(len(recorded), bool)}
    liked_N = LIKED.numpy()[actions(data, recorded)]
    if liked_N.any() and not liked_N.all():
        parts |= {"liked": liked_N, "not marked as liked": ~liked_N}
    genres = {launch.title: set(launch.genres) for launch in data.launches}
    of_N = [genres.get(title, set()) for title in recorded.titles]
    for genre, _ in sorted(Counter(genre for of in of_N for genre in of).most_common(), key=_often)[:GENRES]:
        parts[genre] = np.array([genre in of for of in of_N], bool)
    new_N = np.array(recorded.title_events) < NEW_TITLE
    return parts | {f"titles of fewer than {NEW_TITLE} events": new_N}


def _often(counted: tuple[str, int]) -> tuple[int, str]:
    """Most frequent first, equals by name."""
    return -counted[1], counted[0]


def _found(
    record: Recorded,
    inside_N: NDArray[np.bool_],
    names: Sequence[str],
    seeds: int,
    order: str,
    n_S: NDArray[np.float64],
) -> dict[str, Any]:
    """One task by one order."""
    runs = [f"{name} {k}{order}" for name in names for k in range(seeds)] + ([WITHOUT] if not order else [])
    value_NC = np.stack([record.reciprocal(run)[inside_N] for run in runs], 1)
    p_C, user_N = value_NC.mean(0), np.array(record.users)[inside_N]
    p_DC = bootstrap.resampled(value_NC, user_N, DRAWS)
    many = len(names) * seeds
    p_SK = p_C[:many].reshape(len(names), seeds)
    p_S, p_DS = p_SK.mean(1), over_seeds(p_DC[:, :many].reshape(-1, len(names), seeds))
    less = {name: (p_S[-1] - p_S[s], p_DS[:, -1] - p_DS[:, s]) for s, name in enumerate(names[:-1])}
    if not order:
        less[WITHOUT] = p_S[-1] - p_C[-1], p_DS[:, -1] - p_DC[:, -1]
    return {
        "mrr": dict(zip(names, p_S.tolist(), strict=True)) | ({} if order else {WITHOUT: float(p_C[-1])}),
        "by_seed": dict(zip(names, p_SK.tolist(), strict=True)),
        "largest_less": {name: dict(_interval(*gain)) for name, gain in less.items()},
        "law": law(n_S, p_S, p_DS),
    }


def _interval(mean: float, drawn_D: NDArray[np.float64]) -> Iterator[tuple[str, float]]:
    low, high = np.quantile(drawn_D, [(1 - bootstrap.LEVEL) / 2, (1 + bootstrap.LEVEL) / 2]).tolist()
    yield from (("mean", float(mean)), ("low", low), ("high", high))
