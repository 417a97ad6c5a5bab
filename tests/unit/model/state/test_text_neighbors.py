"""Text neighbours: what brute force finds, however the titles come."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.state.text_neighbors import BLOCK, NEIGHBORS, NONE, TextNeighbors
from tests.support.learner import directions

Lists = list[dict[int, float]]


def found(neighbors: TextNeighbors, titles: int) -> Lists:
    lists = []
    for to, cosine in zip(neighbors.to_VK[:titles].tolist(), neighbors.cosine_VK[:titles].tolist(), strict=True):
        filled = [(row, value) for row, value in zip(to, cosine, strict=True) if row != NONE]
        assert len({row for row, _ in filled}) == len(filled), "a neighbour twice"
        assert all(value == 0 for row, value in zip(to, cosine, strict=True) if row == NONE)
        lists.append(dict(filled))
    return lists


def brute(semantic_VS: NDArray[np.float32]) -> Lists:
    cosine_VV = semantic_VS @ semantic_VS.T
    np.fill_diagonal(cosine_VV, 0)
    lists = []
    for cosine_V in cosine_VV:
        best = np.argsort(-cosine_V)[:NEIGHBORS]
        lists.append({int(row): float(cosine_V[row]) for row in best if cosine_V[row] > 0})
    return lists


def alike(a: Lists, b: Lists) -> bool:
    return [set(row) for row in a] == [set(row) for row in b] and all(
        one[row] == pytest.approx(other[row], abs=1e-6) for one, other in zip(a, b, strict=True) for row in one
    )


@pytest.mark.parametrize("cuts", [[90], [1, 2, 40, 41, 90], [30, 60, 90], [16, 17, 90]])
def test_they_equal_brute_force_as_titles_come_in_batches(cuts: list[int]) -> None:
    semantic_VS = directions(np.random.default_rng(2), 90)
    neighbors = TextNeighbors(128)
    for start, stop in zip([0, *cuts], cuts, strict=False):
        neighbors.update(semantic_VS[:stop], range(start, stop))
        assert alike(found(neighbors, stop), brute(semantic_VS[:stop]))


def test_a_batch_larger_than_a_block_finds_the_same() -> None:
    titles = 2 * BLOCK + 30
    semantic_VS = directions(np.random.default_rng(3), titles, width=64)  # wide: no ties within rounding
    neighbors = TextNeighbors(titles)
    neighbors.update(semantic_VS[:20], range(20))
    neighbors.update(semantic_VS, range(20, titles))
    assert alike(found(neighbors, titles), brute(semantic_VS))


def test_titles_without_text_have_no_neighbours_and_are_nobodys() -> None:
    semantic_VS = directions(np.random.default_rng(4), 40)
    semantic_VS[[3, 20]] = 0
    neighbors = TextNeighbors(40)
    neighbors.update(semantic_VS, range(40))
    lists = found(neighbors, 40)
    assert lists[3] == lists[20] == {}
    assert not any({3, 20} & set(row) for row in lists)
    assert alike(lists, brute(semantic_VS))


@pytest.mark.parametrize("titles", [12, 40])  # fewer than a list holds, and more
def test_a_title_whose_text_changes_leaves_its_old_neighbours(titles: int) -> None:
    semantic_VS = directions(np.random.default_rng(5), titles)
    neighbors = TextNeighbors(titles)
    neighbors.update(semantic_VS, range(titles))
    for row in (0, 5):
        semantic_VS[row] = -semantic_VS[row]
        neighbors.update(semantic_VS, [row])
        lists, wanted = found(neighbors, titles), brute(semantic_VS)
        assert set(lists[row]) == set(wanted[row])
        for other in range(titles):
            true = float(semantic_VS[row] @ semantic_VS[other])
            if row in lists[other]:
                assert lists[other][row] == pytest.approx(true, abs=1e-6)
            elif other != row and row in wanted[other]:
                assert len(lists[other]) == NEIGHBORS


def test_a_title_that_loses_its_text_is_nobodys_neighbour_any_more() -> None:
    semantic_VS = directions(np.random.default_rng(6), 10)
    neighbors = TextNeighbors(10)
    neighbors.update(semantic_VS, range(10))
    for row in range(5):
        semantic_VS[row] = 0
        neighbors.update(semantic_VS, [row])
        assert not (neighbors.to_VK == row).any()
        assert found(neighbors, 10)[row] == {}


def test_a_forgotten_title_leaves_a_gap_that_the_next_one_fills() -> None:
    semantic_VS = directions(np.random.default_rng(7), 40)
    neighbors = TextNeighbors(40)
    neighbors.update(semantic_VS, range(40))
    neighbors.forget(np.array([4, 9]))
    semantic_VS[[4, 9]] = 0
    lists = found(neighbors, 40)
    assert lists[4] == lists[9] == {}
    assert not any({4, 9} & set(row) for row in lists)
    left = [other for other, row in enumerate(brute(directions(np.random.default_rng(7), 40))) if 4 in row]
    semantic_VS[4] = semantic_VS[left[0]]
    neighbors.update(semantic_VS, [4])
    assert found(neighbors, 40)[left[0]][4] == pytest.approx(1.0, abs=1e-6)


def test_room_grows_and_state_survives() -> None:
    semantic_VS = directions(np.random.default_rng(8), 50)
    neighbors = TextNeighbors(30)
    neighbors.update(semantic_VS[:30], range(30))
    neighbors.grow(60)
    other = TextNeighbors(60)
    other.load_state_dict(neighbors.state_dict(30))
    for one in (neighbors, other):
        one.update(semantic_VS, range(30, 50))
        assert alike(found(one, 50), brute(semantic_VS))
    assert np.array_equal(neighbors.to_VK, other.to_VK)
