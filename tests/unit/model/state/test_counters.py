"""Tests of the counters: forward decay, the three pair counts, activity buckets, eviction and restarts."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.state.cooccurrence import PairCounts
from model.state.counters import (
    ACTIVITY_BUCKETS,
    CLOCKS,
    COOCCURRENCE_EVENTS,
    HALF_LIVES_EVENTS,
    HALF_LIVES_MS,
    SESSION_EVENTS,
    Counters,
    EventContext,
    activity_bucket,
    advance_clocks,
    count_event,
    counters_state,
    empty_counters,
    event_weight,
    evict_titles,
    load_counters,
    resized,
)
from model.state.event_evidence import Evidence
from tests.support.statics import log_hours_since_event, log_popularity, mean_liking

HOUR_MS = 3_600_000
NOTHING = np.zeros(0, np.int32)
PLAY_CONTEXT = EventContext(1.0, 0)


def dictionary_of(pairs: PairCounts) -> dict[tuple[int, int], float]:
    at = zip(*np.nonzero(pairs.to_VK >= 0), strict=True)
    return {(int(a), int(pairs.to_VK[a, k])): float(pairs.weight_VK[a, k]) for a, k in at}


def count_events(counters: Counters, stream: list[tuple[int, int]]) -> None:
    for n, (ts, row) in enumerate(stream, 1):
        advance_clocks(counters, ts, n)
        count_event(counters, event_weight(counters), row, NOTHING, PLAY_CONTEXT)


def decayed_popularity(stream: list[tuple[int, int]], titles: int) -> NDArray[np.float64]:
    """Return log(1 + decayed count), summed over all events; a late event counts as of its arrival."""
    reading, now = [], stream[0][0]
    for n, (ts, row) in enumerate(stream, 1):
        now = max(now, ts)
        reading.append((now, n, row))
    total_VZ = np.zeros((titles, CLOCKS))
    for ts, n, row in reading:
        total_VZ[row] += [
            *(2 ** ((ts - reading[-1][0]) / half) for half in HALF_LIVES_MS),
            *(2 ** ((n - reading[-1][1]) / half) for half in HALF_LIVES_EVENTS),
        ]
    return np.log1p(total_VZ)


def random_stream(start: int, hours: float, count: int = 200) -> list[tuple[int, int]]:
    """Return (ms, row) of events over some hours, of which a fifth are late."""
    random = np.random.default_rng(1)
    times = start + np.sort(random.integers(0, int(hours * HOUR_MS), count))
    times[random.random(count) < 0.2] -= 3 * HOUR_MS
    return list(zip(times.tolist(), random.integers(0, 6, count).tolist(), strict=True))


@pytest.mark.parametrize("hours", [5, 30, 150, 3_000])  # the landmark of the fastest clock moves every 40 hours
@pytest.mark.parametrize("start", [1_700_000_000_000, 0, -2_000_000_000_000])
def test_forward_decay_equals_plain_decay(hours: float, start: int) -> None:
    counters, stream = empty_counters(10), random_stream(start, hours)
    count_events(counters, stream)
    np.testing.assert_allclose(log_popularity(counters, 6), decayed_popularity(stream, 6), rtol=1e-4, atol=1e-6)
    assert not log_popularity(counters, 10)[6:].any()


def test_long_gap_leaves_no_short_term_popularity() -> None:
    counters = empty_counters(2)
    stream = [(10**12, 0), (10**12 + 1, 0), (10**12 + 20 * 365 * 24 * HOUR_MS, 1)]
    count_events(counters, stream)
    got = log_popularity(counters, 2)
    np.testing.assert_allclose(got, decayed_popularity(stream, 2), rtol=1e-4, atol=1e-6)
    assert np.isfinite(got).all()
    assert got[0, 0] == 0


def test_late_event_does_not_move_clocks_back() -> None:
    counters = empty_counters(2)
    count_events(counters, [(10**12, 0), (10**12 + HOUR_MS, 0)])
    before = counters.now_Z.copy()
    advance_clocks(counters, 5, 2)
    assert (counters.now_Z == before).all()


def test_event_adds_transition_session_and_cooccurrence_pairs() -> None:
    counters = empty_counters(20)
    advance_clocks(counters, 1, 1)
    count_event(counters, event_weight(counters), 9, np.array([4, -1, 9, 7], np.int32), PLAY_CONTEXT)
    assert dictionary_of(counters.transitions) == {(4, 9): 1.0}
    # an unknown title and the title itself are skipped
    assert dictionary_of(counters.session_cooccurrence) == {(4, 9): 1.0, (7, 9): pytest.approx(0.8)}
    assert dictionary_of(counters.cooccurrence) == {(4, 9): 1.0, (9, 4): 1.0, (7, 9): 1.0, (9, 7): 1.0}


def test_unknown_title_has_no_transition() -> None:
    counters = empty_counters(20)
    advance_clocks(counters, 1, 1)
    count_event(counters, event_weight(counters), 9, np.array([-1, 4], np.int32), PLAY_CONTEXT)
    assert dictionary_of(counters.transitions) == {}


def test_pairs_reach_back_a_bounded_number_of_events() -> None:
    counters = empty_counters(300, neighbors=(2, 20, 300))
    advance_clocks(counters, 1, 1)
    count_event(counters, event_weight(counters), 299, np.arange(200, dtype=np.int32), PLAY_CONTEXT)
    assert [a for a, _ in dictionary_of(counters.session_cooccurrence)] == list(range(SESSION_EVENTS))
    cooccurrence = dictionary_of(counters.cooccurrence)
    assert sorted(b for a, b in cooccurrence if a == 299) == list(range(COOCCURRENCE_EVENTS))


def test_new_users_count_only_as_far_as_established_users_back_the_title() -> None:
    counters = empty_counters(2)
    advance_clocks(counters, 1, 1)
    new = EventContext(1.0, 0, Evidence(established=0.0, new=1.0, max_ratio=0.5, prior=1.0))
    established = EventContext(1.0, 30, Evidence(established=1.0, max_ratio=0.5, prior=1.0))

    def weights(contexts: list[EventContext]) -> list[float]:
        return [count_event(counters, event_weight(counters), 0, NOTHING, context) for context in contexts]

    assert weights([new] * 4) == pytest.approx([0.5, 0, 0, 0])
    assert weights([established] * 2) == [1, 1]
    assert weights([new] * 2) == pytest.approx([1, 0])  # half of the two, and half of the prior was used
    assert log_popularity(counters, 1)[0] == pytest.approx([np.log1p(3.5)] * CLOCKS)
    assert counters.liking_sum_V[0] == pytest.approx(3.5)
    for name in ("evidence_V2", "popularity_VZ"):
        assert not getattr(counters, name)[1].any()


def test_evidence_of_a_title_decays() -> None:
    counters, half_life = empty_counters(1), round(HALF_LIVES_EVENTS[-1])
    new = EventContext(1.0, 0, Evidence(established=0.0, new=1.0, max_ratio=1.0, prior=0.0))
    advance_clocks(counters, 1, 1)
    for _ in range(8):
        count_event(counters, event_weight(counters), 0, NOTHING, PLAY_CONTEXT)
    for events in (1 + half_life, 1 + 50 * half_life):  # the second moves the landmark
        advance_clocks(counters, 1, events)
        scale = event_weight(counters)[-1]
        assert counters.evidence_V2[0, 0] / scale == pytest.approx(8 * 0.5 ** ((events - 1) / half_life), rel=1e-4)
    assert count_event(counters, event_weight(counters), 0, NOTHING, new) < 1e-6


def random_counters() -> Counters:
    random, counters = np.random.default_rng(2), empty_counters(8, neighbors=(3, 4, 5))
    for n in range(300):
        advance_clocks(counters, 10**12 + n * HOUR_MS, n + 1)
        context = EventContext(float(random.choice([-0.5, 1.0, 1.5])), int(random.integers(600)))
        row, recent_L = int(random.integers(8)), random.integers(0, 8, 12).astype(np.int32)
        count_event(counters, event_weight(counters), row, recent_L, context)
    return counters


def test_evicted_title_leaves_no_counts() -> None:
    counters = random_counters()
    before, hours_V, untouched = log_popularity(counters, 8), log_hours_since_event(counters, 8), random_counters()
    evict_titles(counters, np.array([1, 6]))
    after = log_popularity(counters, 8)
    assert not after[[1, 6]].any()
    assert not counters.bucket_count_VB[[1, 6]].any()
    assert not counters.liking_sum_V[[1, 6]].any()
    assert (log_hours_since_event(counters, 8)[[1, 6]] == log_hours_since_event(empty_counters(2), 2)).all()
    others = [0, 2, 3, 4, 5, 7]
    assert (after[others] == before[others]).all()
    assert (log_hours_since_event(counters, 8)[others] == hours_V[others]).all()
    assert (counters.bucket_count_VB[others] == untouched.bucket_count_VB[others]).all()
    assert (counters.liking_sum_V[others] == untouched.liking_sum_V[others]).all()
    for pairs in (counters.transitions, counters.session_cooccurrence, counters.cooccurrence):
        assert not np.isin(pairs.to_VK, [1, 6]).any()
        assert not pairs.total_V[[1, 6]].any()


def test_resizing_and_restart_change_no_count() -> None:
    counters = random_counters()
    state = counters_state(counters, 8)
    wide, loaded = resized(counters, 12), empty_counters(12, neighbors=(3, 4, 5))
    load_counters(loaded, state)
    expected = counters_state(random_counters(), 8)
    for one in (wide, loaded):
        assert len(one.popularity_VZ) == 12
        advance_clocks(one, 10**12 + 301 * HOUR_MS, 301)
        count_event(one, event_weight(one), 11, np.array([10, 3], np.int32), EventContext(1.5, 7))
    for name in ("popularity_VZ", "bucket_count_VB", "last_event_V", "liking_sum_V"):
        assert (getattr(wide, name) == getattr(loaded, name)).all()
        assert (state[name] == expected[name]).all()
    assert (wide.bucket_count_VB[11].tolist(), wide.liking_sum_V[11]) == ([0, 1, 0, 0, 0, 0], 1.5)
    for name in ("transitions", "session_cooccurrence", "cooccurrence"):
        for a, b, c, d in zip(getattr(wide, name), getattr(loaded, name), state[name], expected[name], strict=True):
            assert (a == b).all()
            assert (c == d).all()  # the state is a copy
    assert dictionary_of(wide.transitions)[10, 11] == 1.0


def test_activity_bucket_ends_before_its_boundary() -> None:
    assert [activity_bucket(n) for n in (0, 4, 5, 14, 15, 49, 50, 149, 150, 499, 500, 10**6)] == [
        *(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5),
    ]
    counters = empty_counters(3)
    for row, events in ((1, 0), (1, 4), (1, 5), (2, 500), (2, 10**6)):
        advance_clocks(counters, 1, 1)
        count_event(counters, event_weight(counters), row, NOTHING, EventContext(1.0, events))
    assert counters.bucket_count_VB.tolist() == [[0] * 6, [2, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 2]]
    assert counters.bucket_count_VB.shape[1] == len(ACTIVITY_BUCKETS) + 1


@pytest.mark.parametrize("start", [1_700_000_000_000, 0, -2_000_000_000_000])
def test_hours_since_event_use_the_clock_at_arrival(start: int) -> None:
    counters = empty_counters(4)
    count_events(counters, [(start, 0), (start + 2 * HOUR_MS, 1), (start + 5 * HOUR_MS, 2), (start + HOUR_MS, 1)])
    never = np.log1p(100_000)
    assert log_hours_since_event(counters, 4).tolist() == pytest.approx([np.log1p(5), 0, 0, never])
    advance_clocks(counters, start + 8 * HOUR_MS, 5)
    assert log_hours_since_event(counters, 4).tolist() == pytest.approx([np.log1p(8), np.log1p(3), np.log1p(3), never])
    assert len(log_hours_since_event(counters, 2)) == 2


def test_mean_liking_is_shrunk_to_the_global_mean() -> None:
    counters, count_V = empty_counters(4), np.array([10, 1, 0], np.float32)
    advance_clocks(counters, 1, 1)
    for _ in range(10):
        count_event(counters, event_weight(counters), 0, NOTHING, EventContext(1.5, 0))
    assert mean_liking(counters, count_V[:1]).tolist() == pytest.approx([1.5])
    count_event(counters, event_weight(counters), 1, NOTHING, EventContext(-0.5, 0))
    mean = (10 * 1.5 - 0.5) / 11
    expected = [(15 + 5 * mean) / 15, (-0.5 + 5 * mean) / 6, mean]
    assert mean_liking(counters, count_V).tolist() == pytest.approx(expected)
    assert mean_liking(empty_counters(2), np.zeros(2, np.float32)).tolist() == [0, 0]
