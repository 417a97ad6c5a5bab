"""The publishing benchmark compares with simple implementations that give the same answers, on a small version."""

import numpy as np
import pytest

from benchmarks.publishing import (
    LIST_SIZE,
    PARTS,
    filled_publisher,
    measure_parts,
    nearest_users,
    rank_all_titles,
    rank_by_backbone,
)
from benchmarks.simulated_world import SimulatedWorld, train_recommender
from model.recommender import Recommender


@pytest.fixture(scope="module")
def world() -> SimulatedWorld:
    return SimulatedWorld(titles=400, users=30)


@pytest.fixture(scope="module")
def version(world: SimulatedWorld) -> Recommender:
    return train_recommender(world, learned=100)


def test_naive_ranking_finds_almost_the_same_lists(world: SimulatedWorld, version: Recommender) -> None:
    users = [world.user_context(user) for user in range(3)]
    for naive, ranked in zip(
        rank_all_titles(version, users, world.now), version.recommend(users, world.now, LIST_SIZE), strict=True
    ):
        for titles, ours in zip(naive, ranked.titles.values(), strict=True):
            assert len(titles) == len(ours) == LIST_SIZE
            assert len({*titles} & {*ours}) > 0.8 * LIST_SIZE  # random lists: a quarter


def test_backbone_ranking_leaves_out_seen_titles(world: SimulatedWorld, version: Recommender) -> None:
    users = [world.user_context(user) for user in range(3)]
    by_horizon = rank_by_backbone(version, users, world.now)
    assert len(by_horizon) == len(version.horizons)
    for rows_of_user in by_horizon:
        for rows, user in zip(rows_of_user, users, strict=True):
            titles = {version.stream_state.catalog.ids[row] for row in rows}
            assert len(titles) == LIST_SIZE
            assert not titles & set(user.seen or ())


def test_parts_of_a_refresh_are_profiled_without_overlap(world: SimulatedWorld, version: Recommender) -> None:
    found = {row.variant: row for row in measure_parts(version, world, passes=2)}
    assert set(found) == {*PARTS, "other", "total"}
    assert all(0 < row.ratio <= 1 for row in found.values())  # overlapping parts would leave "other" negative


def test_loop_over_users_equals_the_matrix_product(world: SimulatedWorld, version: Recommender) -> None:
    publisher = filled_publisher(version, world, size=300)
    assert len(publisher.users) == 300
    title_P = version.title_encoder()(world.text_embeddings(np.zeros(1, np.int64))[0])
    nearest = nearest_users(publisher.users, title_P, 20)
    assert nearest == publisher.users.nearest({0: title_P}, 20)
    assert len(nearest) == 20
