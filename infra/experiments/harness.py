"""The common part of all experiments: run several variants over one stream and keep every scored event.

All variants of a run share one stream state and one stream, so they rank the same requests. A difference between two
variants is therefore paired event by event (`model.metrics.bootstrap`).

N scored events
"""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import Dataset
from infra.errors import SettingsError
from infra.experiments import prequential
from infra.experiments.prequential import Measurement, MicroBatch, Observer
from infra.progress import Bar, Reporter
from model.actions import TARGET_WEIGHTS
from model.learner import Learner, RankedEvent
from model.metrics import bootstrap
from model.metrics.baselines import Baselines
from model.metrics.popularity_buckets import POPULARITY_BUCKETS, popularity_bucket
from model.metrics.ranking import NEW_TITLE_EVENTS, NEW_USER_EVENTS, SLICES
from streaming.records import ACTIVITY_HISTORY, action_code

CURVE_POINTS: Final = 24
STATUS_VARIANTS: Final = 3  # variants whose MRR the progress shows: the first ones that rank titles

BeforeBatch = Callable[[int, MicroBatch], None]  # events learned so far, the next micro-batch
EventMasks = Mapping[str, NDArray[np.bool_]]  # name -> mask over the scored events


class ScoredEvents:
    """Scored events in order: user, title, time, earlier events of title and user, and the rank by variant."""

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
        """Keep one event; every event must have ranks under the same names."""
        self.users.append(event.user)
        self.titles.append(event.title)
        self.times.append(event.ts)
        self.title_events.append(event.title_events)
        self.user_events.append(event.user_events)
        for name, rank in ranks.items():
            self.ranks.setdefault(name, []).append(rank)

    def reciprocal_ranks(self, name: str) -> NDArray[np.float64]:
        """1 / rank of each event."""
        return 1 / np.array(self.ranks[name], np.float64)

    def slices(self) -> dict[str, NDArray[np.bool_]]:
        """The events in each of SLICES, as masks."""
        title_N, user_N = np.array(self.title_events), np.array(self.user_events)
        masks = (title_N >= 0, title_N < NEW_TITLE_EVENTS, title_N == 0, user_N < NEW_USER_EVENTS)
        return dict(zip(SLICES, masks, strict=True))

    def popularity_buckets(self) -> dict[str, NDArray[np.bool_]]:
        """The events in each of POPULARITY_BUCKETS, as masks, by the title's earlier events."""
        bucket_N = popularity_bucket(np.array(self.title_events, np.int64))
        return {bucket: bucket_N == index for index, bucket in enumerate(POPULARITY_BUCKETS)}

    def mrr(self, name: str, masks: EventMasks | None = None) -> dict[str, float | None]:
        """MRR by mask, by default by slice; None where no event was scored."""
        return self._means(self.reciprocal_ranks(name), masks)

    def hr10(self, name: str, masks: EventMasks | None = None) -> dict[str, float | None]:
        """HR@10 by mask, by default by slice; None where no event was scored."""
        return self._means(np.array(self.ranks[name]) <= 10, masks)

    def _means(self, value_N: NDArray[Any], masks: EventMasks | None) -> dict[str, float | None]:
        masks = self.slices() if masks is None else masks
        return {part: float(value_N[inside].mean()) if inside.any() else None for part, inside in masks.items()}

    def gain(self, name: str, reference: str, masks: EventMasks | None = None) -> dict[str, dict[str, float] | None]:
        """The paired difference in MRR by mask, by default by slice, with its bootstrap interval over users."""
        rank_N, reference_N, user_N = (np.array(x) for x in (self.ranks[name], self.ranks[reference], self.users))
        gains = {
            part: bootstrap.mrr_difference(rank_N[inside], reference_N[inside], user_N[inside])
            for part, inside in (self.slices() if masks is None else masks).items()
        }
        return {part: None if gain is None else gain._asdict() for part, gain in gains.items()}

    def curve(self, names: Sequence[str] | None = None, points: int = CURVE_POINTS) -> dict[str, list[float]]:
        """MRR of consecutive stretches of the scored events by name, and `events`: the end of each stretch."""
        bounds = np.linspace(0, len(self), min(points, len(self)) + 1).astype(int)
        lines = {"events": bounds[1:].astype(float).tolist()}
        for name in self.ranks if names is None else names:
            total_N = np.concatenate([[0.0], np.cumsum(self.reciprocal_ranks(name))])
            lines[name] = (np.diff(total_N[bounds]) / np.diff(bounds)).tolist()
        return lines

    def status(self) -> str:
        """MRR so far of the first variants."""
        means = {name: float(self.reciprocal_ranks(name).mean()) for name in self.ranks}
        shown = [f"{name} {mean:.4f}" for name, mean in means.items() if mean == mean]  # NaN: it does not rank titles
        return "  ".join(shown[:STATUS_VARIANTS])


class _Recorder(Observer):
    """Records the ranks of each scored event, and prints progress."""

    def __init__(self, bar: Bar, with_baselines: bool, before_batch: BeforeBatch | None) -> None:
        self.bar, self.with_baselines = bar, with_baselines
        self._before_batch, self.recorded = before_batch, ScoredEvents()

    def before_batch(self, done: int, batch: MicroBatch) -> None:
        if self._before_batch is not None:
            self._before_batch(done, batch)

    def on_event(self, event: RankedEvent, baselines: Baselines) -> None:
        by_baseline = baselines.rank(event.user, event.title, event.ts) if self.with_baselines else {}
        self.recorded.add(event, event.ranks | by_baseline)

    def after_batch(self, done: int) -> None:
        self.bar(done, self.recorded.status)


def run_prequential(
    data: Dataset,
    encode: Encoder,
    learner: Learner,
    progress: Reporter,
    measurements: Sequence[Measurement] = (),
    with_baselines: bool = False,
    before_batch: BeforeBatch | None = None,
    history: int = ACTIVITY_HISTORY,
    first: int | None = None,
) -> ScoredEvents:
    """Rank the titles before every event, then learn from it (`infra.experiments.prequential`). Returns every scored
    event, with the ranks of the pipelines, of the `measurements`, and of the baselines if `with_baselines`. Events
    before index `first` of the dataset (by default the first fifth) are learned but not scored."""
    start = None if first is None else data.targets_before(first)
    with progress.bar(data.targets_before(len(data))) as bar:
        recorder = _Recorder(bar, with_baselines, before_batch)
        prequential.run(data, encode, learner, recorder, start, history, measurements)
    return recorder.recorded


def require_scored(recorded: ScoredEvents) -> ScoredEvents:
    """Return `recorded`, or raise SettingsError if no event was scored."""
    if not len(recorded):
        raise SettingsError(
            "Nothing was scored: after the warm-up, no event is on a title that is new to its user. Give more events, "
            "or --repeats if users return to the same titles."
        )
    return recorded


def action_codes(data: Dataset, recorded: ScoredEvents) -> NDArray[np.int64]:
    """code_N: the action of each scored event. Actions of one user on one title at one time keep their order."""
    codes: defaultdict[tuple[str, str, int], deque[int]] = defaultdict(deque)
    for event in map(data.event, range(len(data))):
        code = action_code(event)
        if TARGET_WEIGHTS[code] > 0:  # actions of weight 0 are not ranked
            codes[event.user, event.title, event.ts].append(code)
    keys = zip(recorded.users, recorded.titles, recorded.times, strict=True)
    return np.array([codes[key].popleft() for key in keys], np.int64)


def report_header(data: Dataset, recorded: ScoredEvents) -> dict[str, Any]:
    """The first fields of a report: the dataset and the number of events and users."""
    size = {"events": len(data), "scored": len(recorded), "users": len(set(recorded.users))}
    return {"data": data.name, "simulated": data.simulated, **size}
