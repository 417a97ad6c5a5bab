"""Counts in several time windows against a recount of all events, and their limits."""

import copy

import numpy as np
from numpy.typing import NDArray

from model.metrics.recent_counts import RecentCounts

SPANS_MS = (10, 100, 1000)
TITLES = 6


def random_events(count: int, seed: int = 1) -> list[tuple[int, int]]:
    """(row, ts) in time order, with pauses of all lengths."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.choice([0, 1, 8, 60, 700], count, p=[0.2, 0.4, 0.25, 0.1, 0.05]))
    return list(zip(random.integers(0, TITLES, count).tolist(), times.tolist(), strict=True))


def counted(events: list[tuple[int, int]], max_events: int = 10_000) -> RecentCounts:
    counts = RecentCounts(SPANS_MS, max_events)
    counts.reserve(TITLES)
    for row, ts in events:
        counts.count(row, ts)
    return counts


def recount(events: list[tuple[int, int]], now: int) -> NDArray[np.float64]:
    return np.array(
        [[sum(row == r and ts >= now - span for row, ts in events) for r in range(TITLES)] for span in SPANS_MS],
        np.float64,
    )


def test_counts_equal_a_recount_in_every_window() -> None:
    events, counts = random_events(300), counted([])
    for n, (row, ts) in enumerate(events):
        assert (counts.at(ts, TITLES) == recount(events[:n], ts)).all()
        counts.count(row, ts)
    now = events[-1][1]
    sums = counts.at(now, TITLES).sum(1)
    assert 0 < sums[0] < sums[1] < sums[2] < 300  # the windows differ, and the longest dropped events too


def test_reading_counts_changes_no_state() -> None:
    counts = counted(random_events(100))
    before = copy.deepcopy(counts.state_dict())
    now = random_events(100)[-1][1]
    assert not counts.at(now + 10**6, TITLES).any()
    np.testing.assert_equal(counts.state_dict(), before)


def test_restored_counts_continue_identically() -> None:
    events = random_events(200)
    original, restored = counted(events[:120]), counted([])
    restored.load_state_dict(copy.deepcopy(original.state_dict()))
    for row, ts in events[120:]:
        original.count(row, ts)
        restored.count(row, ts)
        assert (original.at(ts, TITLES) == restored.at(ts, TITLES)).all()
    np.testing.assert_equal(restored.state_dict(), original.state_dict())


def test_full_window_drops_its_oldest_events() -> None:
    events = [(n % TITLES, 0) for n in range(20)]
    counts = counted(events, max_events=5)
    assert counts.state_dict()["lengths"] == [5, 5, 5]
    assert (counts.at(0, TITLES) == recount(events[-5:], 0)).all()


def test_renumbered_rows_keep_the_counts_of_the_kept_titles() -> None:
    events = random_events(150)
    counts, now = counted(events), events[-1][1]
    before_WV = counts.at(now, TITLES)
    counts.keep_rows([0, -1, 1, 2, -1, 3])  # titles 1 and 4 are dropped
    after_WV = counts.at(now, TITLES)
    assert (after_WV[:, :4] == before_WV[:, [0, 2, 3, 5]]).all()
    assert not after_WV[:, 4:].any()
    counts.count(1, now + 1)
    kept = [(row - (row > 1) - (row > 4), ts) for row, ts in events if row not in (1, 4)]
    assert (counts.at(now + 1, TITLES) == recount([*kept, (1, now + 1)], now + 1)).all()
