"""What one user, new users and wrong clocks can do to the popularity of titles."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.learner import Learner
from model.state.counters import HALF_LIVES_MS
from tests.support.learner import D_TEXT, LARGE_STATE, SETTINGS, random_unit_vectors, title_metadata, update
from tests.support.statics import log_popularity

torch.set_num_threads(1)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HOUR_CLOCK, EVENTS_CLOCK = 0, len(HALF_LIVES_MS)


def new_learner(titles: int, min_users: int = 3) -> Learner:
    state = replace(LARGE_STATE, min_users_before_launch=min_users)
    learner = Learner(replace(SETTINGS, stream_state=state))
    learner.observe([title_metadata(f"t{n}") for n in range(titles)])
    return learner


def popularity_of(learner: Learner, title: str, clock: int) -> float:
    state = learner.stream_state
    return float(log_popularity(state.counters, len(state.catalog))[state.catalog.rows[title], clock])


def test_repeated_event_of_one_user_counts_like_a_few_events() -> None:
    learner = new_learner(3)
    for first in range(0, 100, 10):  # in several micro-batches
        titles = ["t0"] * (first + 10)
        learner.observe([update("one user", titles, 10)], ranked_share=0.0)
    assert learner.stream_state.catalog.count_V[0] == pytest.approx(1 + 1 / 4 + 1 / 9)
    assert popularity_of(learner, "t0", EVENTS_CLOCK) <= math.log1p(1 + 1 / 4 + 1 / 9)
    user_store = learner.stream_state.user_store
    assert (user_store.interactions.title_count_V[0], user_store.event_count("one user")) == (100, 100)


def test_events_of_new_users_count_less_than_those_of_established_users() -> None:
    learner = new_learner(2, min_users=1)
    own = {n: [f"own {n}-{i}" for i in range(20)] for n in range(30)}
    for n, titles in own.items():
        learner.observe([update(f"known {n}", titles, 20)], ranked_share=0.0)
    for n in range(10):
        learner.observe([update(f"known {n}", [*own[n], "t0"], 1), update(f"new {n}", ["t1"], 1)], ranked_share=0.0)
    assert learner.stream_state.catalog.count_V[0] == pytest.approx(10)
    assert 0 < learner.stream_state.catalog.count_V[1] < 2


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, 70 * 365 * 24 * HOUR_MS])
def test_event_ahead_of_its_record_time_does_not_age_other_titles(ahead_ms: int) -> None:
    learner = new_learner(2)
    for n in range(20):
        learner.observe([update(f"u{n}", ["t0"], 1)])
    before = popularity_of(learner, "t0", HOUR_CLOCK)
    learner.observe([update("fast clock", ["t1"], 1, start=1_000 + ahead_ms)._replace(recorded=[1_000])])
    assert popularity_of(learner, "t0", HOUR_CLOCK) == pytest.approx(before, rel=1e-4)
    learner.observe([update("later", ["t1"], 1, start=1_000 + HOUR_MS)])
    assert popularity_of(learner, "t0", HOUR_CLOCK) == pytest.approx(math.log1p(math.expm1(before) / 2), rel=1e-3)


def neighbors_of(learner: Learner, title: str) -> set[str]:
    catalog = learner.stream_state.catalog
    return {catalog.ids[row] for row in catalog.text_neighbors.to_VK[catalog.rows[title]].tolist() if row >= 0}


@pytest.mark.parametrize("ranked_share", [0.0, 1.0])
@pytest.mark.parametrize("trains", [False, True])
def test_title_is_a_text_neighbor_from_its_first_event_on(ranked_share: float, trains: bool) -> None:
    text_E = np.full(D_TEXT, D_TEXT**-0.5, np.float32)
    learner = new_learner(0)
    learner.observe([title_metadata(title, text_E) for title in ("watched", "other")])
    learner.observe([update("u", ["watched"], 1)], ranked_share=ranked_share, trains=trains)
    restored = Learner(learner.settings)
    restored.load_state_dict(learner.state_dict())
    for one in (learner, restored):
        one.observe([])
        assert [neighbors_of(one, title) for title in ("watched", "other")] == [set(), {"watched"}]


def test_title_without_an_event_is_a_text_neighbor_from_a_day_after_its_launch_on() -> None:
    text_E, launched = np.full(D_TEXT, D_TEXT**-0.5, np.float32), 100 * DAY_MS
    learner = new_learner(2)
    titles = [title_metadata(title, text_E)._replace(recorded=launched) for title in ("one", "two")]
    learner.observe([*titles, update("u", ["t0"], 1, start=launched)])
    for since_launch, expected in ((DAY_MS - 1, set()), (DAY_MS, {"two"})):
        learner.observe([update("u", ["t0", "t1"], 1, start=launched + since_launch - 60_000)])
        learner.observe([])
        assert neighbors_of(learner, "one") == expected


def test_invented_launches_change_no_text_neighbors() -> None:
    learner = new_learner(0)
    text_VE = random_unit_vectors(np.random.default_rng(4), 90)
    learner.observe([title_metadata(f"t{n}", text_VE[n]) for n in range(30)])
    learner.observe([update("u", [f"t{n}" for n in range(20)], 20)], ranked_share=0.0)
    learner.observe([])
    before = [neighbors_of(learner, f"t{n}") for n in range(30)]
    learner.observe([title_metadata(f"invented{n}", text_VE[30 + n]) for n in range(60)])
    learner.observe([])
    assert [neighbors_of(learner, f"t{n}") for n in range(30)] == before
    assert all(before)
