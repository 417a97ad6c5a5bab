"""The best titles by a query's scores, the scores of given titles, and blocks of queries."""

import numpy as np
import pytest

from model.signals.query_scores import BLOCK_QUERIES, AllScores, BatchScores, CellScores, no_scores
from model.state import title_cells
from model.state.title_cells import TitleCells


@pytest.mark.parametrize("titles", [1_000, 20_000])
def test_best_titles_have_the_highest_scores(titles: int) -> None:
    scores = AllScores(np.random.default_rng(titles).normal(size=titles).astype(np.float32))
    best_M = scores.best(300)
    assert 200 < len(best_M) < 450
    assert scores.score_V[best_M].min() >= np.delete(scores.score_V, best_M).max()


def test_small_catalog_is_the_best_as_a_whole() -> None:
    assert AllScores(np.arange(20, dtype=np.float32)).best(300).tolist() == list(range(20))


def test_titles_with_equal_scores_are_not_chosen() -> None:
    assert len(AllScores(np.zeros(5_000, np.float32)).best(300)) == 0


def test_scores_of_given_titles() -> None:
    assert AllScores(np.arange(20, dtype=np.float32)).of(np.array([3, 19, 3])).tolist() == [3, 19, 3]


def test_queries_are_computed_in_blocks() -> None:
    product_NV = np.random.default_rng(1).normal(size=(2 * BLOCK_QUERIES + 5, 40)).astype(np.float32)
    parts: list[slice] = []

    def compute(part: slice) -> list[AllScores]:
        parts.append(part)
        return [AllScores(score_V) for score_V in product_NV[part]]

    batch = BatchScores(len(product_NV), compute)
    assert len(batch) == len(product_NV)
    for n in range(len(product_NV)):
        np.testing.assert_array_equal(batch[n].of(np.arange(40)), product_NV[n])
    assert [(part.start, part.stop) for part in parts] == [(0, 32), (32, 64), (64, 69)]
    np.testing.assert_array_equal(batch[-1].of(np.arange(40)), product_NV[-1])
    with pytest.raises(IndexError):
        batch[len(product_NV)]


def test_no_scores_are_zero() -> None:
    assert no_scores(3, 7)[2].of(np.arange(7)).tolist() == [0.0] * 7


def test_scores_of_proposed_titles_are_close_to_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(title_cells, "MIN_TITLES", 2_000)
    monkeypatch.setattr(title_cells, "CELLS", 32)
    random = np.random.default_rng(2)
    vector_VP, query_P = random.normal(size=(3_000, 16)).astype(np.float32), random.normal(size=16).astype(np.float32)
    vector_VP[7] = 0
    scale_V, proposed_M = random.random(3_000, np.float32), np.arange(0, 3_000, 2)
    cells = TitleCells()
    cells.update(vector_VP, np.arange(3_000))
    scores = CellScores(query_P, cells, proposed_M, 0.5, scale_V)
    exact_V, rounding = (vector_VP @ query_P - 0.5) * scale_V, 0.1  # of products near 4
    np.testing.assert_allclose(scores.of(np.arange(3_000)), exact_V, atol=rounding)
    assert scores.of(np.array([7])) == -0.5 * scale_V[7]
    best_M = scores.best(100)
    assert set(best_M) <= set(proposed_M)
    assert exact_V[best_M].min() >= exact_V[np.setdiff1d(proposed_M, best_M)].max() - 2 * rounding
    np.testing.assert_allclose(
        CellScores(query_P, cells, proposed_M).of(proposed_M), vector_VP[::2] @ query_P, atol=rounding
    )
