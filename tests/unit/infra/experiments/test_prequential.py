"""The prequential loop: micro-batches with their launches and histories, and the hooks of an observer."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from infra.data.datasets import Dataset
from infra.experiments import prequential
from infra.experiments.prequential import Measurement, MicroBatch, Observer, micro_batches
from model.learner import Learner, RankedEvent
from model.metrics.baselines import Baselines
from model.pipeline import PreparedRequest, RankingRequest
from model.signals.snapshot import CatalogSnapshot
from model.state.stream_state import History, TitleMetadata, UserUpdate
from streaming.records import ACTIVITY_HISTORY
from tests.support.evaluation import DAY_S, SETTINGS, START_S, checkerboard, dataset_of, no_text, random_text


def late_titles() -> Dataset:
    """Titles that launch all the time: by a launch time, or by their first event if they have none."""
    random = np.random.default_rng(3)
    rows = [
        (int(random.integers(6)), int(random.integers(max(n // 8 - 6, 0), n // 8 + 1)), START_S + n * DAY_S)
        for n in range(240)
    ]
    described = [
        {"item": item, "title": f"title {item}", "launched_ts": START_S + item * 7 * DAY_S + 100 if item % 3 else None}
        for item in range(40)
    ]
    return dataset_of(rows, described)


def test_title_is_candidate_from_its_launch_on() -> None:
    data = late_titles()
    learner = Learner(replace(SETTINGS, repeats=True))
    launch_of = {launch.title: int(launch.ts or 0) for launch in data.launches}
    done, not_launched = 0, 0
    for batch in micro_batches(data, random_text):
        ranked = learner.observe(batch).ranked
        done += len(ranked)
        end = data.event(done - 1).ts
        catalog, candidate_V = learner.stream_state.catalog, learner.stream_state.catalog.candidate_V
        candidates = {catalog.ids[row] for row in np.flatnonzero(candidate_V)}
        assert candidates == {title for title, ts in launch_of.items() if ts < end and title in data.titles}
        not_launched += len(data.titles) - len(candidates)
        assert all(np.isfinite(event.ranks["full"]) for event in ranked)  # every target is a candidate
    assert done == 240
    assert not_launched > 20


def test_micro_batches_hold_every_event_once_with_its_history() -> None:
    data = late_titles()
    seen: dict[str, list[str]] = {}
    orders = []
    for batch in micro_batches(data, no_text):
        assert all(isinstance(item, TitleMetadata | UserUpdate) for item in batch)
        updates = [item for item in batch if isinstance(item, UserUpdate)]
        assert len({item.user for item in updates}) == len(updates)
        for item in updates:
            seen.setdefault(item.user, []).extend(item.titles[place] for place in item.new)
            assert list(item.titles) == seen[item.user][-ACTIVITY_HISTORY - len(item.new) :]
            orders += list(item.order)
    assert sorted(orders) == list(range(240))


def test_titles_without_events_are_not_launched() -> None:
    data = dataset_of([(0, 0, START_S), (1, 1, START_S + 9)], [{"item": n, "title": "x"} for n in range(4)])
    assert len(data.launches) == 4
    launched = [item for batch in micro_batches(data, no_text) for item in batch if isinstance(item, TitleMetadata)]
    assert sorted(item.title for item in launched) == ["0", "1"]
    assert all(len(item.semantic) == 0 for item in launched)


class Counts(Observer):
    """Notes the calls of the hooks."""

    def __init__(self) -> None:
        self.before: list[int] = []
        self.after: list[int] = []
        self.scored: list[tuple[str, str]] = []

    def before_batch(self, done: int, batch: MicroBatch) -> None:
        assert any(isinstance(item, UserUpdate) for item in batch)
        self.before.append(done)

    def on_event(self, event: RankedEvent, baselines: Baselines) -> None:
        assert not baselines.has_seen(event.user, event.title)
        self.scored.append((event.user, event.title))

    def after_batch(self, done: int) -> None:
        self.after.append(done)


class EventNumbers(Measurement):
    """Gives each event its number, counted from the first target event, and the number of its request."""

    def __init__(self) -> None:
        super().__init__({"number": -1.0, "request": -1.0})
        self.count = 0
        self.requests: list[int] = []

    def on_prepared(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        self.requests = [n for n, request in enumerate(requests) if not request.delay]

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> dict[str, float]:
        assert prepared.n == self.requests.pop(0)  # delayed requests are left out
        assert snapshot.stream_state.events == self.count  # the event is not counted yet
        self.count += 1
        return {"number": self.count, "request": float(prepared.n)}


class Ranks(Observer):
    def __init__(self) -> None:
        self.by_event: list[dict[str, float]] = []

    def on_event(self, event: RankedEvent, baselines: Baselines) -> None:
        self.by_event.append(event.ranks)


def test_measurement_gives_each_event_further_ranks() -> None:
    ranks, numbers = Ranks(), EventNumbers()
    learner = Learner(replace(SETTINGS, delayed_query_share=0.5))
    prequential.run(checkerboard(160), no_text, learner, ranks, first=100, measurements=[numbers])
    assert [by_name["number"] for by_name in ranks.by_event] == list(range(101, 161))
    assert all(by_name.keys() == {"full", "number", "request"} for by_name in ranks.by_event)
    assert any(later["request"] - one["request"] > 1 for one, later in pairwise(ranks.by_event))


def test_event_on_a_waiting_title_has_the_missing_ranks_of_a_measurement() -> None:
    evicting = replace(SETTINGS, stream_state=replace(SETTINGS.stream_state, max_titles=12))
    ranks, numbers = Ranks(), EventNumbers()
    prequential.run(checkerboard(160), no_text, Learner(evicting), ranks, first=0, measurements=[numbers])
    waiting = [by_name for by_name in ranks.by_event if by_name["number"] < 0]
    assert 0 < len(waiting) == 160 - numbers.count
    assert all(by_name == {"full": math.inf, "number": -1, "request": -1} for by_name in waiting)


def test_observer_sees_each_batch_and_each_scored_event() -> None:
    observer = Counts()
    prequential.run(checkerboard(160), no_text, Learner(SETTINGS), observer, first=100)
    assert observer.before == [0, 64, 128]
    assert observer.after == [64, 128, 160]
    assert len(observer.scored) == 60
    repeated = dataset_of([(0, 0, START_S), (0, 0, START_S + 9), (0, 1, START_S + 18)])
    observer = Counts()
    prequential.run(repeated, no_text, Learner(SETTINGS), observer, first=0)
    assert observer.scored == [("0", "0"), ("0", "1")]
