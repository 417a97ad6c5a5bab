"""The prequential loop: rank the titles before every event of a dataset, then learn from the event.

Every evaluation runs this loop with an observer, and with measurements that give each event further ranks. Titles that
a user has seen are no candidates, so an event with one is learned but not scored, unless users return to titles.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.text_encoders import Encoder, launch_text
from infra.data.datasets import Dataset
from model.learner import Learner, RankedEvent
from model.metrics.baselines import Baselines
from model.pipeline import PreparedRequest, RankingRequest
from model.signals.snapshot import CatalogSnapshot
from model.state.stream_state import History, TitleMetadata, UserUpdate
from streaming.records import ACTIVITY_HISTORY, Launch, action_code

WARMUP_SHARE: Final = 0.2  # share of the events that are learned before the first one is scored
BATCH_EVENTS: Final = 64  # events per micro-batch, as in the live learner

MicroBatch = list[TitleMetadata | UserUpdate]


class Observer:
    """Hooks of the loop, which do nothing by default. `done` is the number of target events learned so far."""

    def before_batch(self, done: int, batch: MicroBatch) -> None:
        """Called before a micro-batch is ranked and learned."""

    def on_event(self, event: RankedEvent, baselines: Baselines) -> None:
        """Called for each scored event, before the baselines count it."""

    def after_batch(self, done: int) -> None:
        """Called after a micro-batch is learned."""


class Measurement:
    """Further ranks of each event, from the state before it; see `model.pipeline.RequestObserver` for the calls.

    `missing` are the ranks of an event on a title that waits for its launch: no list can hold it, so it has no request.
    """

    missing: Mapping[str, float]

    def __init__(self, missing: Mapping[str, float] | None = None) -> None:
        self.missing = missing or {}

    def on_prepared(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        """Does nothing by default."""

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> Mapping[str, float]:
        """Nothing by default."""
        return {}


@dataclass(frozen=True)
class _Measurements:
    """Several measurements as one observer of the learner."""

    each: Sequence[Measurement]

    def on_prepared(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        for measurement in self.each:
            measurement.on_prepared(snapshot, histories, requests)

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> dict[str, float]:
        ranks: dict[str, float] = {}
        for measurement in self.each:
            ranks |= measurement.on_ranked(snapshot, prepared)
        return ranks

    def completed(self, event: RankedEvent) -> RankedEvent:
        """The event with a rank under every name."""
        missing = {name: rank for measurement in self.each for name, rank in measurement.missing.items()}
        return event._replace(ranks={**event.ranks, **missing}) if not event.is_learned else event


def run(
    data: Dataset,
    encode: Encoder,
    learner: Learner,
    observer: Observer,
    first: int | None = None,
    history: int = ACTIVITY_HISTORY,
    measurements: Sequence[Measurement] = (),
) -> None:
    """Run the loop over a dataset. Target events before the number `first` (by default those of the first fifth of the
    dataset) are learned but not scored. The learner gets at most `history` earlier events of a user. Events have the
    ranks of the `measurements` too."""
    measured = _Measurements(measurements)
    baselines = Baselines(repeats=learner.settings.repeats)
    first = warmup_targets(data) if first is None else first
    done = 0
    for batch in micro_batches(data, encode, history):
        for title in batch:
            if isinstance(title, TitleMetadata):
                baselines.launch(title.title)
        observer.before_batch(done, batch)
        for event in learner.observe(batch, observer=measured).ranked:
            if done >= first and not baselines.has_seen(event.user, event.title):
                observer.on_event(measured.completed(event), baselines)
            baselines.count(event.user, event.title, event.ts)
            done += 1
        observer.after_batch(done)


def warmup_targets(data: Dataset) -> int:
    """Number of target events in the first fifth of the dataset, which are learned but not scored. The learner ranks
    target events only, so the warm-up is counted in them: impressions must not make it longer."""
    return data.targets_before(int(len(data) * WARMUP_SHARE))


def micro_batches(
    data: Dataset, encode: Encoder, max_history: int = ACTIVITY_HISTORY
) -> Iterator[list[TitleMetadata | UserUpdate]]:
    """The dataset as micro-batches of the learner: first the launches that are due, then one update per user, with the
    new events and at most `max_history` earlier ones."""
    titles = data.launches_with_events()
    metadata = _title_metadata(titles, encode)
    due = [int(launch.ts or 0) for launch in titles]
    histories: dict[str, list[tuple[str, int, int]]] = {}
    launched = 0  # titles so far
    for start in range(0, len(data), BATCH_EVENTS):
        batch: list[TitleMetadata | UserUpdate] = []
        new: dict[str, list[int]] = {}
        for k in range(start, min(start + BATCH_EVENTS, len(data))):
            event = data.event(k)
            while launched < len(due) and due[launched] < event.ts:
                batch.append(metadata[launched])
                launched += 1
            histories.setdefault(event.user, []).append((event.title, event.ts, action_code(event)))
            new.setdefault(event.user, []).append(k)
        for user, order in new.items():
            history = histories[user] = histories[user][-max_history - len(order) :]
            names, times, actions = zip(*history, strict=True)
            new_indices = range(len(history) - len(order), len(history))
            batch.append(UserUpdate(user, names, times, actions, new_indices, order))
        yield batch


def _title_metadata(titles: list[Launch], encode: Encoder) -> list[TitleMetadata]:
    texts = [launch_text(title.name, title.genres, title.overview, title.text) for title in titles]
    vectors = encode(texts)
    no_text = np.zeros(0, np.float32)
    return [
        TitleMetadata(
            t.title, vector if vector.any() else no_text, t.genres, t.year, t.released, False, recorded=t.ts or 0
        )
        for t, vector in zip(titles, vectors, strict=True)
    ]
