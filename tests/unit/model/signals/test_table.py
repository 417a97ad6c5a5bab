"""Signals in worlds made by hand, whose value can be said beforehand."""

from dataclasses import dataclass, field
from math import exp, log1p, sqrt
from typing import Final

import numpy as np
import pytest

from model.actions import ACTIONS
from model.signals import candidates
from model.signals.gather import gather
from model.signals.table import COLUMN
from model.signals.user_knn import RIDGE
from model.state.stream_state import History, StreamState
from tests.support.learner import D_TEXT, PLAY, ROOMY, launched

TITLES: Final = 6
NEW_YEAR: Final = 1_577_836_800_000  # 2020, ms
HOUR: Final = 3_600_000


@dataclass
class World:
    """Six titles; the text of the last is that of title 2, all others have nothing in common."""

    years: list[int | None] = field(default_factory=lambda: [None] * TITLES)
    taken: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text = np.eye(TITLES, D_TEXT, dtype=np.float32)
        text[5] = text[2]
        self.stream_state = StreamState(ROOMY)
        self.stream_state.launch(launched(f"t{n}", text[n], year=self.years[n]) for n in range(TITLES))

    def history(self, user: str, action: int = PLAY) -> History:
        rows = self.taken.get(user, [])
        return History(user, np.array(rows, np.int64), np.arange(len(rows)) + NEW_YEAR, np.full(len(rows), action))

    def take(self, user: str, *rows: int, ts: int = NEW_YEAR, action: int = PLAY) -> "World":
        for row in rows:
            self.stream_state.count(self.history(user), row, ts, action)
            self.taken.setdefault(user, []).append(row)
        return self

    def column(self, name: str, asker: str | History = "asker") -> list[float]:
        history = asker if isinstance(asker, History) else self.history(asker)
        snapshot, query = candidates.view(self.stream_state), self.stream_state.query(history, NEW_YEAR)
        gather(query, snapshot.titles, self.stream_state.counters, snapshot.scratch)
        signals_CF = candidates.read(snapshot, query, history, np.arange(TITLES), 0.0)
        return [float(one) for one in signals_CF[:, COLUMN[name]]]

    def said(self, row: int) -> float:
        return 1 / (1 + log1p(self.stream_state.catalog.count_V[row]))


def test_what_the_asker_took_counts_by_how_often_and_how_lately() -> None:
    world = World().take("asker", 0, 2, 0)
    np.testing.assert_allclose(world.column("taken often"), [sqrt(2), 0, 1, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(world.column("taken lately"), [sqrt(1 + 0.93**2), 0, sqrt(0.93), 0, 0, 0], rtol=1e-6)
    assert world.column("taken often", "other") == [0.0] * TITLES


def test_takers_are_compared_with_the_asker_in_all_and_by_the_most_alike() -> None:
    world = World().take("one", 0, 1).take("two", 2).take("three", 1).take("asker", 0)
    shared = world.said(0) / sqrt(2 + 10)  # of the first; nobody else took what the asker did
    wanted = [sqrt(shared / sqrt(2)), sqrt(shared / sqrt(3)), 0, 0, 0, 0]
    assert world.column("takers alike") == pytest.approx(wanted, rel=1e-4)
    assert world.column("takers most") == pytest.approx([sqrt(shared), sqrt(shared), 0, 0, 0, 0], rel=1e-4)


def test_eras_are_the_askers_years_each_fading_to_both_sides() -> None:
    world = World([2000, 2010, 2004, 1997, 2040, None]).take("asker", 1, 0)
    near = [(1, 2000), (0.9, 2010)]  # the newest first
    wanted = [
        sum(weight * exp(-abs(year - own) / 3) for weight, own in near if abs(year - own) <= 12) / 1.9
        for year in (2000, 2010, 2004, 1997, 2040)
    ]
    assert world.column("eras") == pytest.approx([*wanted, 0.1], rel=1e-4)
    assert wanted[4] == 0
    assert world.column("eras", "nobody") == pytest.approx([0.1] * TITLES)


def test_the_stage_of_life_decides_whose_events_count() -> None:
    world = World().take("a", 1).take("b", 1).take("c", 1)
    world.take("busy", 0, 0, 0, 0, 0, 2, 2)
    assert world.column("stage", "nobody") == pytest.approx([log1p(5), log1p(3), 0, 0, 0, 0])
    assert world.column("stage", "a") == pytest.approx([log1p(5), log1p(3), 0, 0, 0, 0])
    assert world.column("stage", "busy") == pytest.approx([0, 0, log1p(2), 0, 0, 0])


def test_years_old_are_counted_from_the_present_in_tens() -> None:
    world = World([2010, 2020, 1990, 2025, None, 2000])
    assert world.column("years old") == pytest.approx([1, 0, 3, -0.5, -1, 2], abs=1e-3)


def test_what_a_title_borrows_from_the_neighbour_that_others_took_next() -> None:
    world = World().take("other", 0, 2).take("asker", 0)
    share = 1 / 1.3  # one neighbour, of the same text
    shared, size = world.said(0) / sqrt(2 + 10), world.said(0) + world.said(2)
    fitted = world.said(0) / sqrt((size + 1) * (world.said(0) + 1)) / (size / (size + 1) + RIDGE) / sqrt(size + 1)
    assert world.column("around alike")[2] == pytest.approx(sqrt(shared), rel=1e-4)
    assert world.column("alike fitted")[2] == pytest.approx(sqrt(fitted), rel=1e-4)
    assert world.column("neighbours around") == pytest.approx([0, 0, 0, 0, 0, sqrt(share * shared)], rel=1e-4)
    assert world.column("neighbours alike") == pytest.approx([0, 0, 0, 0, 0, sqrt(share * fitted)], rel=1e-4)


def test_user_liking_is_the_mean_of_what_was_done() -> None:
    world = World().take("asker", 0, 1)
    history = world.history("asker")
    history.actions_L[:] = ACTIONS["finish"].code, ACTIONS["rated low"].code
    assert world.column("user liking", history) == pytest.approx([(1.5 - 0.2) / 2] * TITLES)
    assert world.column("user liking", "nobody") == [0] * TITLES


def test_around_is_what_others_took_after_and_before_the_askers_titles() -> None:
    world = World().take("early", 4, 0).take("late", 3, 0, 1, 2).take("asker", 0)
    assert world.column("around after") == pytest.approx([0, 1, sqrt(0.85), 0, 0, 0], rel=1e-4)
    assert world.column("around before") == pytest.approx([0, 0, 0, 1, 1, 0], rel=1e-4)
    wanted = [0, 1, sqrt(0.85), 1, sqrt(0.93), 0]  # the one who took it longer ago counts for less
    assert world.column("around lately") == pytest.approx(wanted, rel=1e-4)
    alike = [world.said(0) / sqrt(many + 10) for many in (4, 2)]
    wanted = [0, sqrt(alike[0]), sqrt(0.85 * alike[0]), sqrt(alike[0]), sqrt(alike[1]), 0]
    assert world.column("around alike") == pytest.approx(wanted, rel=1e-4)
    assert world.column("around breadth") == [0, 1, 1, 1, 1, 0]
    world.take("asker", 1)  # now 0 lies one back, and 2 and 3 stand near both
    wanted = [0, sqrt(0.8), sqrt(1 + 0.8 * 0.85), 0, 0, 0]
    assert world.column("around after") == pytest.approx(wanted, rel=1e-4)
    assert world.column("around breadth") == pytest.approx([1, 1, sqrt(2), sqrt(2), 1, 0], rel=1e-4)


def test_quiet_and_liked_are_of_the_title_alone() -> None:
    world = World().take("a", 0, ts=NEW_YEAR - 3 * HOUR, action=ACTIONS["finish"].code).take("b", 1)
    never = log1p(100_000)
    assert world.column("quiet", "nobody") == pytest.approx([log1p(3), 0, *[never] * 4])
    wanted = [(1.5 + 5 * 1.25) / 6, (1 + 5 * 1.25) / 6, *[1.25] * 4]
    assert world.column("liked", "nobody") == pytest.approx(wanted)
