"""Sparse pairs: a plain dictionary while there is room, and bounded beyond."""

import numpy as np

from model.state.cooccurrence import EMPTY, Pairs, add_pair, empty_pairs, evict_rows


def held(pairs: Pairs, a: int) -> dict[int, float]:
    """A row's neighbours; the filled slots must stand in front."""
    to, weight = pairs.to_VK[a], pairs.weight_VK[a]
    filled = int((to != EMPTY).sum())
    assert (to[:filled] != EMPTY).all()
    assert (weight[filled:] == 0).all()
    return dict(zip(to[:filled].tolist(), weight[:filled].tolist(), strict=True))


def test_where_nothing_overflows_they_equal_a_plain_dictionary() -> None:
    random, pairs = np.random.default_rng(0), empty_pairs(7, 7)
    plain: list[dict[int, float]] = [{} for _ in range(7)]
    for _ in range(400):
        a, b, weight = int(random.integers(7)), int(random.integers(7)), float(random.integers(1, 5)) / 4
        add_pair(pairs, a, b, weight)
        plain[a][b] = plain[a].get(b, 0.0) + weight
    assert [held(pairs, a) for a in range(7)] == plain
    assert pairs.total_V.tolist() == [sum(row.values()) for row in plain]


def test_a_full_row_is_not_exceeded_and_totals_count_everything() -> None:
    pairs = empty_pairs(2, 3)
    for b in range(2, 50):
        add_pair(pairs, 0, b, 1.0)
    assert len(held(pairs, 0)) == 3
    assert pairs.total_V.tolist() == [48.0, 0.0]
    assert held(pairs, 1) == {}


def test_a_pair_that_keeps_coming_gets_in_and_a_single_one_does_not_push_out_a_frequent_one() -> None:
    pairs = empty_pairs(1, 2)
    for b, times in ((5, 9), (6, 4)):
        for _ in range(times):
            add_pair(pairs, 0, b, 1.0)
    for single in range(10, 13):
        add_pair(pairs, 0, single, 1.0)
    assert held(pairs, 0) == {5: 9.0, 6: 1.0}  # the weakest has paid for each of them
    add_pair(pairs, 0, 7, 1.0)
    assert held(pairs, 0) == {5: 9.0, 7: 1.0}
    for _ in range(3):
        add_pair(pairs, 0, 7, 1.0)
    assert held(pairs, 0) == {5: 9.0, 7: 4.0}


def test_a_heavy_newcomer_takes_the_place_of_the_weakest_at_once() -> None:
    pairs = empty_pairs(1, 2)
    add_pair(pairs, 0, 3, 0.5)
    add_pair(pairs, 0, 4, 2.0)
    add_pair(pairs, 0, 5, 0.75)
    assert held(pairs, 0) == {5: 0.75, 4: 2.0}


def test_forgotten_rows_are_mentioned_nowhere_and_filled_slots_stay_in_front() -> None:
    random, pairs = np.random.default_rng(1), empty_pairs(9, 5)
    for _ in range(300):
        add_pair(pairs, int(random.integers(9)), int(random.integers(9)), 1.0)
    before, totals = [held(pairs, a) for a in range(9)], pairs.total_V.copy()
    evict_rows(pairs, np.array([2, 8]))
    after = [held(pairs, a) for a in range(9)]
    assert not np.isin(pairs.to_VK, [2, 8]).any()
    for a in range(9):
        kept = {} if a in (2, 8) else {b: weight for b, weight in before[a].items() if b not in (2, 8)}
        assert after[a] == kept
        assert pairs.total_V[a] == (0 if a in (2, 8) else totals[a])
    add_pair(pairs, 0, 8, 1.0)  # the row's next owner begins at nothing
    assert held(pairs, 0)[8] == 1.0


def test_forgetting_nothing_changes_nothing() -> None:
    pairs = empty_pairs(3, 2)
    add_pair(pairs, 0, 1, 1.0)
    evict_rows(pairs, np.zeros(0, np.int64))
    assert [held(pairs, a) for a in range(3)] == [{1: 1.0}, {}, {}]
