"""Tests of single signals against values computed by hand in small examples."""

from dataclasses import dataclass, field
from math import exp, log1p, sqrt
from typing import Final

import numpy as np
import pytest

from model.actions import ACTIONS
from model.signals.candidates import signals_of, user_signals
from model.signals.inputs import user_query
from model.signals.query_scores import AllScores
from model.signals.snapshot import take_snapshot
from model.signals.table import COLUMN
from model.signals.user_knn import RIDGE_PENALTY
from model.state.stream_state import History, StreamState
from tests.support.learner import D_TEXT, LARGE_STATE, PLAY, title_metadata

TITLES: Final = 6
NEW_YEAR: Final = 1_577_836_800_000  # 2020, ms
HOUR_MS: Final = 3_600_000


@dataclass
class World:
    """Six titles: titles 2 and 5 have the same text, all other texts are orthogonal."""

    years: list[int | None] = field(default_factory=lambda: [None] * TITLES)
    rows: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text = np.eye(TITLES, D_TEXT, dtype=np.float32)
        text[5] = text[2]
        self.stream_state = StreamState(LARGE_STATE)
        self.stream_state.launch(title_metadata(f"t{n}", text[n], year=self.years[n]) for n in range(TITLES))

    def history(self, user: str, action: int = PLAY) -> History:
        rows = self.rows.get(user, [])
        return History(user, np.array(rows, np.int64), np.arange(len(rows)) + NEW_YEAR, np.full(len(rows), action))

    def add(self, user: str, *rows: int, ts: int = NEW_YEAR, action: int = PLAY) -> "World":
        for row in rows:
            self.stream_state.count_event(self.history(user), row, ts, action)
            self.rows.setdefault(user, []).append(row)
        self.stream_state.launch([])  # the next micro-batch
        self.stream_state.refresh()
        return self

    def column(self, name: str, user: str | History = "user") -> list[float]:
        history = user if isinstance(user, History) else self.history(user)
        snapshot, query = take_snapshot(self.stream_state), user_query(self.stream_state, history, NEW_YEAR)
        signals = user_signals(snapshot, query)
        no_scores = AllScores(np.zeros(TITLES, np.float32))
        signals_CF = signals_of(snapshot, signals, np.arange(TITLES), no_scores, np.zeros(TITLES, np.float32), 0.0)
        return [float(value) for value in signals_CF[:, COLUMN[name]]]

    def idf(self, row: int) -> float:
        return 1 / (1 + log1p(self.stream_state.user_store.interactions.title_count_V[row]))


def test_repeat_signals_count_the_users_own_events() -> None:
    world = World().add("user", 0, 2, 0)
    np.testing.assert_allclose(world.column("repeat count"), [sqrt(2), 0, 1, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(world.column("repeat recency"), [sqrt(1 + 0.93**2), 0, sqrt(0.93), 0, 0, 0], rtol=1e-6)
    assert world.column("repeat count", "other") == [0.0] * TITLES


def test_title_users_signals_are_sum_and_max_of_similarity() -> None:
    world = World().add("one", 0, 1).add("two", 2).add("three", 1).add("user", 0)
    shared = world.idf(0) / sqrt(2 + 10)  # of user "one"; no other user shares a title
    expected = [sqrt(shared / sqrt(2)), sqrt(shared / sqrt(3)), 0, 0, 0, 0]
    assert world.column("title users similarity") == pytest.approx(expected, rel=1e-4)
    assert world.column("title users max") == pytest.approx([sqrt(shared), sqrt(shared), 0, 0, 0, 0], rel=1e-4)


def test_year_affinity_decays_to_both_sides_of_watched_years() -> None:
    world = World([2000, 2010, 2004, 1997, 2040, None]).add("user", 1, 0)
    watched = [(1, 2000), (0.9, 2010)]  # (recency weight, year), newest first
    expected = [
        sum(weight * exp(-abs(year - other) / 3) for weight, other in watched if abs(year - other) <= 12) / 1.9
        for year in (2000, 2010, 2004, 1997, 2040)
    ]
    assert world.column("year affinity") == pytest.approx([*expected, 0.1], rel=1e-4)
    assert expected[4] == 0
    assert world.column("year affinity", "unknown") == pytest.approx([0.1] * TITLES)


def test_bucket_popularity_counts_users_of_the_same_activity() -> None:
    world = World().add("a", 1).add("b", 1).add("c", 1)
    world.add("busy", 0, 0, 0, 0, 0, 2, 2)
    assert world.column("activity bucket popularity", "unknown") == pytest.approx([log1p(5), log1p(3), 0, 0, 0, 0])
    assert world.column("activity bucket popularity", "a") == pytest.approx([log1p(5), log1p(3), 0, 0, 0, 0])
    assert world.column("activity bucket popularity", "busy") == pytest.approx([0, 0, log1p(2), 0, 0, 0])


def test_decades_old_are_relative_to_the_query_time() -> None:
    world = World([2010, 2020, 1990, 2025, None, 2000])
    assert world.column("decades old") == pytest.approx([1, 0, 3, -0.5, -1, 2], abs=1e-3)


def test_text_neighbor_signals_average_the_neighbors_signals() -> None:
    world = World().add("other", 0, 2).add("user", 0)
    weight = 1 / 1.3  # one neighbor with the same text
    shared, size = world.idf(0) / sqrt(2 + 10), world.idf(0) + world.idf(2)
    vote = world.idf(0) / sqrt((size + 1) * (world.idf(0) + 1)) / (size / (size + 1) + RIDGE_PENALTY) / sqrt(size + 1)
    assert world.column("neighbor similarity")[2] == pytest.approx(sqrt(shared), rel=1e-4)
    assert world.column("knn ridge")[2] == pytest.approx(sqrt(vote), rel=1e-4)
    expected = [0, 0, 0, 0, 0, sqrt(weight * shared)]
    assert world.column("text neighbor user similarity") == pytest.approx(expected, rel=1e-4)
    expected = [0, 0, 0, 0, 0, sqrt(weight * vote)]
    assert world.column("text neighbor knn ridge") == pytest.approx(expected, rel=1e-4)


def test_user_mean_liking_is_the_mean_over_actions() -> None:
    world = World().add("user", 0, 1)
    history = world.history("user")
    history.actions_L[:] = ACTIONS["finish"].code, ACTIONS["rated low"].code
    assert world.column("user mean liking", history) == pytest.approx([(1.5 - 0.2) / 2] * TITLES)
    assert world.column("user mean liking", "unknown") == [0] * TITLES


def test_neighbor_signals_count_other_users_adjacent_events() -> None:
    world = World().add("early", 4, 0).add("late", 3, 0, 1, 2).add("user", 0)
    assert world.column("neighbor after") == pytest.approx([0, 1, sqrt(0.85), 0, 0, 0], rel=1e-4)
    assert world.column("neighbor before") == pytest.approx([0, 0, 0, 1, 1, 0], rel=1e-4)
    expected = [0, 1, sqrt(0.85), 1, sqrt(0.93), 0]  # the earlier user of the shared title has less weight
    assert world.column("neighbor recency") == pytest.approx(expected, rel=1e-4)
    similarity = [world.idf(0) / sqrt(events + 10) for events in (4, 2)]
    expected = [0, sqrt(similarity[0]), sqrt(0.85 * similarity[0]), sqrt(similarity[0]), sqrt(similarity[1]), 0]
    assert world.column("neighbor similarity") == pytest.approx(expected, rel=1e-4)
    assert world.column("neighbor breadth") == [0, 1, 1, 1, 1, 0]
    world.add("user", 1)  # title 0 is now one event back, and titles 2 and 3 are adjacent to both
    expected = [0, sqrt(0.8), sqrt(1 + 0.8 * 0.85), 0, 0, 0]
    assert world.column("neighbor after") == pytest.approx(expected, rel=1e-4)
    assert world.column("neighbor breadth") == pytest.approx([1, 1, sqrt(2), sqrt(2), 1, 0], rel=1e-4)


def test_static_signals_do_not_depend_on_the_user() -> None:
    world = World().add("a", 0, ts=NEW_YEAR - 3 * HOUR_MS, action=ACTIONS["finish"].code).add("b", 1)
    never = log1p(100_000)
    assert world.column("hours since last event", "unknown") == pytest.approx([log1p(3), 0, *[never] * 4])
    expected = [(1.5 + 5 * 1.25) / 6, (1 + 5 * 1.25) / 6, *[1.25] * 4]
    assert world.column("mean liking", "unknown") == pytest.approx(expected)
