"""The simulated service under attack: copies, lists, and the users that an attack reaches."""

from functools import lru_cache
from typing import Final

import numpy as np
import pytest

from infra.data.simulate import simulate
from infra.experiments.abuse_world import World, WorldEvent, entered, mean_overlap, simulated_events
from tests.support.evaluation import SETTINGS, random_text
from tests.support.learner import state_differences, title_metadata

DATA: Final = simulate(users=12, titles=80, events=200, days=30, seed=1)


@lru_cache(maxsize=1)
def world() -> World:
    """The world that the tests copy."""
    return World.after(DATA, random_text, SETTINGS)


def test_copy_learns_on_without_changing_the_original() -> None:
    before, user = world().learner.state_dict(), simulated_events(DATA)[0].user
    copied = world().copy(max_titles=77)
    assert copied.learner.settings.stream_state.max_titles == 77
    copied.learn([WorldEvent(user, "new", world().now + n) for n in range(3)], [title_metadata("new")])
    assert state_differences(world().learner.state_dict(), before) == []
    assert (len(copied.histories[user]), copied.now) == (len(world().histories[user]) + 3, world().now + 2)
    assert copied.candidates() == world().candidates() | {"new"}
    assert copied.state_bytes() > world().state_bytes()


def test_histories_after_further_events_are_those_of_the_dataset() -> None:
    half = World.after(DATA.slice(0, 128), random_text, SETTINGS)
    half.learn(simulated_events(DATA)[128:])
    assert half.histories == world().histories
    assert half.now == world().now


def test_lists_exclude_seen_titles() -> None:
    users = sorted(world().users_in_store())
    for user, titles in world().lists(users).items():
        assert titles
        assert not set(titles) & {title for title, _, _ in world().histories[user]}


def test_only_users_reached_because_of_the_attack_are_counted() -> None:
    without = {"a": ["x", "y"], "b": ["y", "x"], "c": ["y"]}
    lists = {"a": ["x", "y"], "b": ["x", "y"], "c": ["y", "x"]}
    assert [entered("x", lists, without, size) for size in (1, 2)] == [1, 1]
    assert mean_overlap(without, lists) == pytest.approx(np.mean([0.2, 0.2, 0.1]))
