"""The attacks of the abuse experiment, on a tiny world."""

from functools import lru_cache
from typing import Any, Final

import numpy as np
import pytest

from infra.data.simulate import simulate
from infra.experiments import abuse_attacks as attacks
from infra.experiments.abuse_attacks import KINDS, Scene
from infra.experiments.abuse_world import NEW_TITLE_SLOTS, World, simulated_events
from tests.support.evaluation import SETTINGS, random_text

DATA: Final = simulate(users=12, titles=80, events=260, days=30, seed=1)


@lru_cache(maxsize=1)
def scene() -> Scene:
    world = World.after(DATA.slice(0, 230), random_text, SETTINGS)
    return attacks.new_scene(world, simulated_events(DATA)[230:], users=6, random=np.random.default_rng(1))


def test_target_has_few_events_and_lists_are_of_honest_users() -> None:
    state = scene().world.learner.stream_state
    assert 1 <= state.user_store.interactions.title_count_V[state.catalog.rows[scene().target]] <= 3
    assert len(scene().users) == 6
    assert set(scene().users) == set(scene().without) == set(scene().without_later)


@pytest.mark.parametrize("kind", KINDS)
def test_fake_events_reach_a_share_of_the_users(kind: str) -> None:
    result = attacks.fake_events(scene(), kind, 6)
    assert all(0 <= result[key] <= 1 for key in ("top10", "lists", "top10_later", "lists_later"))


def test_no_fake_event_reaches_nobody() -> None:
    result = attacks.fake_events(scene(), KINDS[0], 0)
    assert result == {"top10": 0, "lists": 0, "top10_later": 0, "lists_later": 0, "state_kib": 0}


def test_invented_ids_evict_no_launched_title() -> None:
    assert attacks.invented_ids(scene())["evicted_launched"] == 0


def flood(texts: str, gap_ms: int) -> dict[str, Any]:
    return attacks.launch_flood(scene(), texts, gap_ms, np.random.default_rng(1))


@pytest.mark.parametrize("gap_ms", [1, 60_000])
def test_flood_of_one_text_is_at_most_once_in_a_list(gap_ms: int) -> None:
    identical, distinct = flood(attacks.IDENTICAL_TEXTS, gap_ms), flood(attacks.DISTINCT_TEXTS, gap_ms)
    assert identical["fakes"] <= 1
    assert 0 <= identical["displaced"] <= distinct["displaced"] <= NEW_TITLE_SLOTS
    assert identical["new_titles"] == distinct["new_titles"] > 0


def test_premiere_reaches_users_who_have_not_seen_it() -> None:
    reached = attacks.real_premiere(scene().world, scene().users, 3, np.random.default_rng(1))
    assert 0 <= reached <= len(scene().users)
