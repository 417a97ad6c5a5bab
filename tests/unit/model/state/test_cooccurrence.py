"""Tests of pair counts: exact while a list has free entries, bounded afterwards."""

import numpy as np

from model.state.cooccurrence import NO_NEIGHBOR, PairCounts, add_pair, empty_pair_counts, evict_rows


def neighbors_of(pairs: PairCounts, a: int) -> dict[int, float]:
    """Return a title's neighbors with their counts; the entries must be contiguous."""
    to_K, weight_K = pairs.to_VK[a], pairs.weight_VK[a]
    filled = int((to_K != NO_NEIGHBOR).sum())
    assert (to_K[:filled] != NO_NEIGHBOR).all()
    assert (weight_K[filled:] == 0).all()
    return dict(zip(to_K[:filled].tolist(), weight_K[:filled].tolist(), strict=True))


def test_counts_equal_a_dictionary_without_overflow() -> None:
    random, pairs = np.random.default_rng(0), empty_pair_counts(7, 7)
    plain: list[dict[int, float]] = [{} for _ in range(7)]
    for _ in range(400):
        a, b, weight = int(random.integers(7)), int(random.integers(7)), float(random.integers(1, 5)) / 4
        add_pair(pairs, a, b, weight)
        plain[a][b] = plain[a].get(b, 0.0) + weight
    assert [neighbors_of(pairs, a) for a in range(7)] == plain
    assert pairs.total_V.tolist() == [sum(row.values()) for row in plain]


def test_full_list_stays_bounded_and_total_counts_all() -> None:
    pairs = empty_pair_counts(2, 3)
    for b in range(2, 50):
        add_pair(pairs, 0, b, 1.0)
    assert len(neighbors_of(pairs, 0)) == 3
    assert pairs.total_V.tolist() == [48.0, 0.0]
    assert neighbors_of(pairs, 1) == {}


def test_frequent_pair_enters_full_list_and_single_pair_does_not_replace_it() -> None:
    pairs = empty_pair_counts(1, 2)
    for b, times in ((5, 9), (6, 4)):
        for _ in range(times):
            add_pair(pairs, 0, b, 1.0)
    for single in range(10, 13):
        add_pair(pairs, 0, single, 1.0)
    assert neighbors_of(pairs, 0) == {5: 9.0, 6: 1.0}  # each of them has reduced the weakest entry
    add_pair(pairs, 0, 7, 1.0)
    assert neighbors_of(pairs, 0) == {5: 9.0, 7: 1.0}
    for _ in range(3):
        add_pair(pairs, 0, 7, 1.0)
    assert neighbors_of(pairs, 0) == {5: 9.0, 7: 4.0}


def test_pair_with_large_weight_replaces_weakest_at_once() -> None:
    pairs = empty_pair_counts(1, 2)
    add_pair(pairs, 0, 3, 0.5)
    add_pair(pairs, 0, 4, 2.0)
    add_pair(pairs, 0, 5, 0.75)
    assert neighbors_of(pairs, 0) == {5: 0.75, 4: 2.0}


def test_evicted_title_leaves_no_counts_and_lists_stay_contiguous() -> None:
    random, pairs = np.random.default_rng(1), empty_pair_counts(9, 5)
    for _ in range(300):
        add_pair(pairs, int(random.integers(9)), int(random.integers(9)), 1.0)
    before, totals = [neighbors_of(pairs, a) for a in range(9)], pairs.total_V.copy()
    evict_rows(pairs, np.array([2, 8]))
    after = [neighbors_of(pairs, a) for a in range(9)]
    assert not np.isin(pairs.to_VK, [2, 8]).any()
    for a in range(9):
        kept = {} if a in (2, 8) else {b: weight for b, weight in before[a].items() if b not in (2, 8)}
        assert after[a] == kept
        assert pairs.total_V[a] == (0 if a in (2, 8) else totals[a])
    add_pair(pairs, 0, 8, 1.0)  # the next title in the row starts at zero
    assert neighbors_of(pairs, 0)[8] == 1.0


def test_evicting_nothing_changes_nothing() -> None:
    pairs = empty_pair_counts(3, 2)
    add_pair(pairs, 0, 1, 1.0)
    evict_rows(pairs, np.zeros(0, np.int64))
    assert [neighbors_of(pairs, a) for a in range(3)] == [{1: 1.0}, {}, {}]
