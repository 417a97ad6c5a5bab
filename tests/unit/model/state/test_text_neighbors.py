"""Tests of the text neighbors: equal to brute force in every order of arrival."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from model.state.text_neighbors import NEIGHBORS_PER_TITLE, NO_NEIGHBOR, UPDATE_BLOCK_ROWS, TextNeighbors
from model.state.title_cells import TitleCells
from tests.support.learner import random_unit_vectors

Lists = list[dict[int, float]]


def settled_neighbors(capacity: int) -> TextNeighbors:
    """Lists in which every title may be a neighbor."""
    neighbors = TextNeighbors(capacity)
    neighbors.settled_V[:] = True
    return neighbors


def lists_of(neighbors: TextNeighbors, titles: int) -> Lists:
    lists = []
    for to, cosine in zip(neighbors.to_VK[:titles].tolist(), neighbors.cosine_VK[:titles].tolist(), strict=True):
        filled = [(row, value) for row, value in zip(to, cosine, strict=True) if row != NO_NEIGHBOR]
        assert len({row for row, _ in filled}) == len(filled), "duplicate neighbor"
        assert all(value == 0 for row, value in zip(to, cosine, strict=True) if row == NO_NEIGHBOR)
        lists.append(dict(filled))
    return lists


def brute_force(semantic_VE: NDArray[np.float32], settled: Sequence[int] | None = None) -> Lists:
    cosine_VV = semantic_VE @ semantic_VE.T
    if settled is not None:
        cosine_VV *= np.isin(np.arange(len(semantic_VE)), settled)
    np.fill_diagonal(cosine_VV, 0)
    lists = []
    for cosine_V in cosine_VV:
        best = np.argsort(-cosine_V)[:NEIGHBORS_PER_TITLE]
        lists.append({int(row): float(cosine_V[row]) for row in best if cosine_V[row] > 0})
    return lists


def same_lists(a: Lists, b: Lists) -> bool:
    return [set(row) for row in a] == [set(row) for row in b] and all(
        one[row] == pytest.approx(other[row], abs=1e-6) for one, other in zip(a, b, strict=True) for row in one
    )


@pytest.mark.parametrize("cuts", [[90], [1, 2, 40, 41, 90], [30, 60, 90], [16, 17, 90]])
def test_neighbors_equal_brute_force_for_any_batches(cuts: list[int]) -> None:
    semantic_VE = random_unit_vectors(np.random.default_rng(2), 90)
    neighbors = settled_neighbors(128)
    for start, stop in zip([0, *cuts], cuts, strict=False):
        neighbors.update(semantic_VE[:stop], range(start, stop), TitleCells())
        assert same_lists(lists_of(neighbors, stop), brute_force(semantic_VE[:stop]))


@pytest.mark.parametrize("settled", [[0], [3, 40, 89], list(range(0, 90, 2)), list(range(90))])
def test_only_settled_titles_are_neighbors(settled: list[int]) -> None:
    semantic_VE, neighbors = random_unit_vectors(np.random.default_rng(2), 90), TextNeighbors(128)
    neighbors.update(semantic_VE[:50], range(50), TitleCells())
    assert lists_of(neighbors, 50) == [{}] * 50
    early, late = [row for row in settled if row < 50], [row for row in settled if row >= 50]
    neighbors.settle(semantic_VE[:50], np.array(early), TitleCells())
    neighbors.update(semantic_VE, range(50, 90), TitleCells())
    assert same_lists(lists_of(neighbors, 90), brute_force(semantic_VE, early))
    neighbors.settle(semantic_VE, np.array(late, np.int64), TitleCells())
    assert same_lists(lists_of(neighbors, 90), brute_force(semantic_VE, settled))


@pytest.mark.parametrize("changed", [3, 35])  # settled and not
def test_changed_text_of_a_title_is_in_the_lists_only_if_it_has_settled(changed: int) -> None:
    semantic_VE, neighbors = random_unit_vectors(np.random.default_rng(5), 40), TextNeighbors(40)
    settled = range(12)  # a list holds all of them
    neighbors.settle(semantic_VE, np.array(settled), TitleCells())
    neighbors.update(semantic_VE, range(40), TitleCells())
    semantic_VE[changed] = -semantic_VE[changed]
    neighbors.update(semantic_VE, [changed], TitleCells())
    assert same_lists(lists_of(neighbors, 40), brute_force(semantic_VE, settled))


def test_batch_larger_than_a_block_equals_brute_force() -> None:
    titles = 2 * UPDATE_BLOCK_ROWS + 30
    # a large width avoids ties within rounding
    semantic_VE = random_unit_vectors(np.random.default_rng(3), titles, width=64)
    neighbors = settled_neighbors(titles)
    neighbors.update(semantic_VE[:20], range(20), TitleCells())
    neighbors.update(semantic_VE, range(20, titles), TitleCells())
    assert same_lists(lists_of(neighbors, titles), brute_force(semantic_VE))


def test_title_without_text_has_no_neighbors_and_is_none() -> None:
    semantic_VE = random_unit_vectors(np.random.default_rng(4), 40)
    semantic_VE[[3, 20]] = 0
    neighbors = settled_neighbors(40)
    neighbors.update(semantic_VE, range(40), TitleCells())
    lists = lists_of(neighbors, 40)
    assert lists[3] == lists[20] == {}
    assert not any({3, 20} & set(row) for row in lists)
    assert same_lists(lists, brute_force(semantic_VE))


@pytest.mark.parametrize("titles", [12, 40])  # fewer and more than a list holds
def test_changed_text_replaces_the_old_neighbors(titles: int) -> None:
    semantic_VE = random_unit_vectors(np.random.default_rng(5), titles)
    neighbors = settled_neighbors(titles)
    neighbors.update(semantic_VE, range(titles), TitleCells())
    for row in (0, 5):
        semantic_VE[row] = -semantic_VE[row]
        neighbors.update(semantic_VE, [row], TitleCells())
        lists, expected = lists_of(neighbors, titles), brute_force(semantic_VE)
        assert set(lists[row]) == set(expected[row])
        for other in range(titles):
            cosine = float(semantic_VE[row] @ semantic_VE[other])
            if row in lists[other]:
                assert lists[other][row] == pytest.approx(cosine, abs=1e-6)
            elif other != row and row in expected[other]:
                assert len(lists[other]) == NEIGHBORS_PER_TITLE


def test_removed_text_leaves_all_neighbor_lists() -> None:
    semantic_VE = random_unit_vectors(np.random.default_rng(6), 10)
    neighbors = settled_neighbors(10)
    neighbors.update(semantic_VE, range(10), TitleCells())
    for row in range(5):
        semantic_VE[row] = 0
        neighbors.update(semantic_VE, [row], TitleCells())
        assert not (neighbors.to_VK == row).any()
        assert lists_of(neighbors, 10)[row] == {}


def test_evicted_title_leaves_a_gap_that_the_next_title_fills() -> None:
    semantic_VE = random_unit_vectors(np.random.default_rng(7), 40)
    neighbors = settled_neighbors(40)
    neighbors.update(semantic_VE, range(40), TitleCells())
    neighbors.remove(np.array([4, 9]))
    semantic_VE[[4, 9]] = 0
    lists = lists_of(neighbors, 40)
    assert lists[4] == lists[9] == {}
    assert not any({4, 9} & set(row) for row in lists)
    original = brute_force(random_unit_vectors(np.random.default_rng(7), 40))
    left = [other for other, row in enumerate(original) if 4 in row]
    semantic_VE[4] = semantic_VE[left[0]]
    assert not neighbors.settled_V[[4, 9]].any()
    neighbors.settle(semantic_VE, np.array([4]), TitleCells())
    neighbors.update(semantic_VE, [4], TitleCells())
    assert lists_of(neighbors, 40)[left[0]][4] == pytest.approx(1.0, abs=1e-6)


def test_capacity_grows_and_state_is_restored() -> None:
    semantic_VE = random_unit_vectors(np.random.default_rng(8), 50)
    neighbors = settled_neighbors(30)
    neighbors.update(semantic_VE[:30], range(30), TitleCells())
    neighbors.grow(60)
    restored = TextNeighbors(60)
    restored.load_state_dict(neighbors.state_dict(30))
    for one in (neighbors, restored):
        one.settled_V[30:] = True
        one.update(semantic_VE, range(30, 50), TitleCells())
        assert same_lists(lists_of(one, 50), brute_force(semantic_VE))
    assert np.array_equal(neighbors.to_VK, restored.to_VK)
