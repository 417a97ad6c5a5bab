"""The state is that of a long stream: full tables, real histories, and a learner that can continue."""

import numpy as np
import pytest

from benchmarks.scale_world import MAX_HISTORY, TOPICS, ScaleWorld
from model.state.cooccurrence import NO_NEIGHBOR

TITLES, USERS = 1_500, 60


@pytest.fixture(scope="module")
def world() -> ScaleWorld:
    return ScaleWorld(TITLES, USERS)


def test_every_title_is_a_candidate_with_full_tables(world: ScaleWorld) -> None:
    catalog, counters = world.state.catalog, world.state.counters
    assert len(catalog) == len(catalog.rows) == int(catalog.candidate_V.sum()) == TITLES
    for pairs in (counters.transitions, counters.session_cooccurrence, counters.cooccurrence):
        assert (pairs.to_VK[:TITLES] != NO_NEIGHBOR).all()
    assert len(np.unique(world.topic_V)) == TOPICS
    neighbors = catalog.text_neighbors.to_VK[:TITLES]
    assert (world.topic_V[neighbors] == world.topic_V[:, None]).mean() > 2 / TOPICS  # random ones: 1 / TOPICS


def test_user_store_holds_the_histories_in_order(world: ScaleWorld) -> None:
    for user, rows in enumerate(world.histories):
        assert world.state.user_store.seen_by(f"u{user}").tolist() == rows.tolist()
    context = world.user_context(0)
    assert list(context.titles) == [f"t{row}" for row in world.histories[0].tolist()][-MAX_HISTORY:]


def test_learner_continues_from_the_state(world: ScaleWorld) -> None:
    result = world.learner.observe(world.micro_batch(4, 0))
    assert len(result.ranked) == 4
    assert "backbone" in result.losses["full"]


def test_launch_adds_a_title_without_new_arrays(world: ScaleWorld) -> None:
    capacity = world.state.catalog.capacity
    world.state.launch([world.launch(0)])
    assert len(world.state.catalog) == TITLES + 1
    assert world.state.catalog.capacity == capacity
