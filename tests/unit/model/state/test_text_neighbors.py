"""Text neighbours: what brute force finds, however the titles come."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.state.text_neighbors import BLOCK, NEIGHBOURS, NONE, TextNeighbours
from tests.support.learner import directions

Lists = list[dict[int, float]]


def found(neighbours: TextNeighbours, titles: int) -> Lists:
    lists = []
    for to, cosine in zip(neighbours.to_VK[:titles].tolist(), neighbours.cosine_VK[:titles].tolist(), strict=True):
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
        best = np.argsort(-cosine_V)[:NEIGHBOURS]
        lists.append({int(row): float(cosine_V[row]) for row in best if cosine_V[row] > 0})
    return lists


def alike(a: Lists, b: Lists) -> bool:
    return [set(row) for row in a] == [set(row) for row in b] and all(
        one[row] == pytest.approx(other[row], abs=1e-6) for one, other in zip(a, b, strict=True) for row in one
    )


@pytest.mark.parametrize("cuts", [[90], [1, 2, 40, 41, 90], [30, 60, 90], [16, 17, 90]])
def test_they_equal_brute_force_as_titles_come_in_batches(cuts: list[int]) -> None:
    semantic_VS = directions(np.random.default_rng(2), 90)
    neighbours = TextNeighbours(128)
    for start, stop in zip([0, *cuts], cuts, strict=False):
        neighbours.update(semantic_VS[:stop], range(start, stop))
        assert alike(found(neighbours, stop), brute(semantic_VS[:stop]))


def test_a_batch_larger_than_a_block_finds_the_same() -> None:
    titles = 2 * BLOCK + 30
    semantic_VS = directions(np.random.default_rng(3), titles, width=64)  # wide: no ties within rounding
    neighbours = TextNeighbours(titles)
    neighbours.update(semantic_VS[:20], range(20))
    neighbours.update(semantic_VS, range(20, titles))
    assert alike(found(neighbours, titles), brute(semantic_VS))


def test_titles_without_text_have_no_neighbours_and_are_nobodys() -> None:
    semantic_VS = directions(np.random.default_rng(4), 40)
    semantic_VS[[3, 20]] = 0
    neighbours = TextNeighbours(40)
    neighbours.update(semantic_VS, range(40))
    lists = found(neighbours, 40)
    assert lists[3] == lists[20] == {}
    assert not any({3, 20} & set(row) for row in lists)
    assert alike(lists, brute(semantic_VS))


@pytest.mark.parametrize("titles", [12, 40])  # fewer than a list holds, and more
def test_a_title_whose_text_changes_leaves_its_old_neighbours(titles: int) -> None:
    semantic_VS = directions(np.random.default_rng(5), titles)
    neighbours = TextNeighbours(titles)
    neighbours.update(semantic_VS, range(titles))
    for row in (0, 5):
        semantic_VS[row] = -semantic_VS[row]
        neighbours.update(semantic_VS, [row])
        lists, wanted = found(neighbours, titles), brute(semantic_VS)
        assert set(lists[row]) == set(wanted[row])
        for other in range(titles):
            true = float(semantic_VS[row] @ semantic_VS[other])
            if row in lists[other]:
                assert lists[other][row] == pytest.approx(true, abs=1e-6)
            elif other != row and row in wanted[other]:
                assert len(lists[other]) == NEIGHBOURS


def test_a_title_that_loses_its_text_is_nobodys_neighbour_any_more() -> None:
    semantic_VS = directions(np.random.default_rng(6), 10)
    neighbours = TextNeighbours(10)
    neighbours.update(semantic_VS, range(10))
    for row in range(5):
        semantic_VS[row] = 0
        neighbours.update(semantic_VS, [row])
        assert not (neighbours.to_VK == row).any()
        assert found(neighbours, 10)[row] == {}


def test_a_forgotten_title_leaves_a_gap_that_the_next_one_fills() -> None:
    semantic_VS = directions(np.random.default_rng(7), 40)
    neighbours = TextNeighbours(40)
    neighbours.update(semantic_VS, range(40))
    neighbours.forget(np.array([4, 9]))
    semantic_VS[[4, 9]] = 0
    lists = found(neighbours, 40)
    assert lists[4] == lists[9] == {}
    assert not any({4, 9} & set(row) for row in lists)
    left = [other for other, row in enumerate(brute(directions(np.random.default_rng(7), 40))) if 4 in row]
    semantic_VS[4] = semantic_VS[left[0]]
    neighbours.update(semantic_VS, [4])
    assert found(neighbours, 40)[left[0]][4] == pytest.approx(1.0, abs=1e-6)


def test_room_grows_and_state_survives() -> None:
    semantic_VS = directions(np.random.default_rng(8), 50)
    neighbours = TextNeighbours(30)
    neighbours.update(semantic_VS[:30], range(30))
    neighbours.grow(60)
    other = TextNeighbours(60)
    other.load_state_dict(neighbours.state_dict(30))
    for one in (neighbours, other):
        one.update(semantic_VS, range(30, 50))
        assert alike(found(one, 50), brute(semantic_VS))
    assert np.array_equal(neighbours.to_VK, other.to_VK)
