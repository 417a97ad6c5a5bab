"""Cells hold nearly all of a query's best titles, follow moved titles at once, and are restored with the same bits."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.state import title_cells as module
from model.state.title_cells import TitleCells
from tests.support.learner import random_unit_vectors

TITLES, WIDTH = 3_000, 16
FOUND = np.random.default_rng(7).permutation(TITLES)[:40]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MIN_TITLES": 2_000, "CELLS": 32, "PROBED_CELLS": 6, "_BLOCK_ROWS": 500}.items():
        monkeypatch.setattr(module, name, value)


def vectors(titles: int = TITLES) -> NDArray[np.float32]:
    """Unit vectors around 20 topics."""
    random = np.random.default_rng(3)
    topics = random_unit_vectors(random, 20, WIDTH)
    vector_VP = topics[random.integers(0, 20, titles)] + 0.15 * random.normal(size=(titles, WIDTH))
    unit_VP: NDArray[np.float32] = (vector_VP / np.linalg.norm(vector_VP, axis=1, keepdims=True)).astype(np.float32)
    return unit_VP


def test_cells_hold_nearly_all_of_the_best_titles() -> None:
    vector_VP, cells = vectors(), TitleCells()
    cells.update(vector_VP, np.arange(TITLES))
    assert cells.is_ready
    proposed = cells.proposed(vector_VP[FOUND])
    best = np.argsort(-vector_VP[FOUND] @ vector_VP.T, axis=1)[:, :50]
    recall = [np.isin(best_M, rows_M).mean() for best_M, rows_M in zip(best, proposed, strict=True)]
    assert np.mean(recall) > 0.97
    assert np.mean([len(rows_M) for rows_M in proposed]) < TITLES / 2
    assert all(len(rows_M) == len(set(rows_M.tolist())) for rows_M in proposed)


def test_small_catalog_has_no_cells() -> None:
    cells = TitleCells()
    cells.update(vectors(1_999), np.arange(1_999))
    assert not cells.is_ready


def test_without_the_package_there_are_no_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    cells = TitleCells()
    cells.update(vectors(), np.arange(TITLES))
    assert not cells.is_ready


def test_new_and_moved_titles_are_proposed_at_once_and_listed_later() -> None:
    vector_VP, cells = vectors(TITLES + 40), TitleCells()
    cells.update(vector_VP[:TITLES], np.arange(TITLES))
    old_P = vector_VP[5].copy()
    vector_VP[5] = -old_P
    cells.update(vector_VP[: TITLES + 5], np.array([5, *range(TITLES, TITLES + 5)]))
    (far,) = cells.proposed(old_P[None])
    assert {5, *range(TITLES, TITLES + 5)} <= set(far.tolist())  # read by every query, since no list has them
    cells.update(vector_VP, np.arange(TITLES + 5, TITLES + 40))  # more than a hundredth of the titles
    (near,), (far,) = cells.proposed(vector_VP[5:6]), cells.proposed(old_P[None])
    assert 5 in near
    assert 5 not in far


def test_centers_are_computed_anew_when_the_catalog_has_doubled() -> None:
    vector_VP, cells = vectors(6_000), TitleCells()
    cells.update(vector_VP[:TITLES], np.arange(TITLES))
    before = cells.center_CP
    cells.update(vector_VP[:5_999], np.arange(TITLES, 5_999))
    assert cells.center_CP is before
    cells.update(vector_VP, np.array([5_999]))
    assert (cells.center_CP != before).any()


def test_restored_cells_continue_with_the_same_bits() -> None:
    vector_VP, cells, restored = vectors(), TitleCells(seed=4), TitleCells(seed=4)
    cells.update(vector_VP, np.arange(TITLES))
    vector_VP[:20] = vector_VP[20:40]
    cells.update(vector_VP, np.arange(20))
    restored.load_state_dict(cells.state_dict(TITLES), vector_VP)
    for one in (cells, restored):
        one.update(vector_VP, np.arange(100))
    proposals = zip(cells.proposed(vector_VP[FOUND]), restored.proposed(vector_VP[FOUND]), strict=True)
    assert all(np.array_equal(one_M, other_M) for one_M, other_M in proposals)
    score_M, restored_M = (one.scores(vector_VP[3], np.arange(TITLES)) for one in (cells, restored))
    assert np.array_equal(score_M, restored_M)
    np.testing.assert_allclose(score_M, vector_VP @ vector_VP[3], atol=0.02)
    first, second = cells.state_dict(TITLES), restored.state_dict(TITLES)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_title_that_came_after_the_update_has_score_zero() -> None:
    vector_VP, cells = vectors(), TitleCells()
    cells.update(vector_VP, np.arange(TITLES))
    assert cells.scores(vector_VP[3], np.array([TITLES, 10 * TITLES])).tolist() == [0.0, 0.0]


def test_state_of_a_model_without_titles_is_restored() -> None:
    restored = TitleCells()
    restored.load_state_dict(TitleCells().state_dict(0), np.zeros(0, np.float32))
    assert not restored.is_ready


def test_catalog_that_doubles_title_by_title_gets_new_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_TITLES", 100)
    vector_VP, cells = vectors(), TitleCells()
    cells.update(vector_VP[:100], np.arange(100))
    for titles in range(101, 260):
        cells.update(vector_VP[:titles], np.array([titles - 1]))
        np.testing.assert_allclose(
            cells.scores(vector_VP[3], np.arange(titles)), vector_VP[:titles] @ vector_VP[3], atol=0.02
        )


def test_title_that_came_after_the_last_update_is_restored_without_a_score() -> None:
    vector_VP, cells, restored = vectors(TITLES + 1), TitleCells(), TitleCells()
    cells.update(vector_VP[:TITLES], np.arange(TITLES))
    restored.load_state_dict(cells.state_dict(TITLES + 1), vector_VP)
    for one in (cells, restored):
        assert one.scores(vector_VP[3], np.array([TITLES])) == 0
        one.update(vector_VP, np.array([TITLES]))
    rows_M = np.arange(TITLES + 1)
    assert np.array_equal(cells.scores(vector_VP[3], rows_M), restored.scores(vector_VP[3], rows_M))
