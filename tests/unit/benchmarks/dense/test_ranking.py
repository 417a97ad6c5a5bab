"""The dense reference serves the lists that the product serves, but for candidates that the product does not reach."""

import numpy as np
import pytest

from benchmarks.dense.ranking import DenseRanking
from benchmarks.scale_world import ScaleWorld
from model.recommender import Recommender

SIZE = 50


@pytest.fixture(scope="module")
def world() -> ScaleWorld:
    return ScaleWorld(titles=4_000, users=60)  # more than the titles of a catalog that is the pool of every query


def test_lists_agree_with_those_of_the_product(world: ScaleWorld) -> None:
    users = [world.user_context(user) for user in range(6)]
    version = Recommender(world.state, world.learner.served_pipeline)
    served = version.recommend(users, world.now, SIZE, 5)
    reference = DenseRanking(world.state, version.pipeline).recommend(users, world.now, SIZE, 5)
    for ours, dense in zip(served, reference, strict=True):
        assert set(ours.titles) == set(dense)
        for horizon, titles in dense.items():
            assert len(titles) == SIZE
            assert len(set(titles) & set(ours.titles[horizon])) > 0.9 * SIZE


def test_launched_title_gets_neighbors_and_a_vector(world: ScaleWorld) -> None:
    ranking = DenseRanking(world.state, world.learner.served_pipeline)
    before, title = len(ranking.e_VP), world.launch(0)
    ranking.launch(title)
    row = world.state.catalog.rows[title.title]
    assert len(ranking.e_VP) == len(ranking.tower_VD) == len(ranking.text_VE) == before + 1
    neighbors = world.state.catalog.text_neighbors
    cosine_V = world.state.catalog.semantic_VE[:before] @ title.semantic
    nearest = np.argsort(-cosine_V)[: neighbors.to_VK.shape[1]]
    assert set(neighbors.to_VK[row].tolist()) == set(nearest.tolist())
