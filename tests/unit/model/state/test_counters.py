"""Counters: forward decay equals plain decay, and each of the three pair tables counts what it says."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.state.cooccurrence import Pairs
from model.state.counters import (
    CLOCKS,
    HALF_LIVES_EVENTS,
    HALF_LIVES_MS,
    NEAR,
    STAGES,
    TOGETHER,
    Counters,
    EventKind,
    activity_bucket,
    count_event,
    counters_state,
    empty_counters,
    evict_titles,
    gain,
    grown,
    liked,
    load_counters,
    popularity,
    quiet,
    tick,
)

HOUR = 3_600_000
NOTHING = np.zeros(0, np.int32)
A_PLAY = EventKind(1.0, 0)


def pairs_of(pairs: Pairs) -> dict[tuple[int, int], float]:
    at = zip(*np.nonzero(pairs.to_VK >= 0), strict=True)
    return {(int(a), int(pairs.to_VK[a, k])): float(pairs.weight_VK[a, k]) for a, k in at}


def play(counters: Counters, stream: list[tuple[int, int]]) -> None:
    for n, (ts, row) in enumerate(stream, 1):
        tick(counters, ts, n)
        count_event(counters, gain(counters), row, NOTHING, A_PLAY)


def plain(stream: list[tuple[int, int]], titles: int) -> NDArray[np.float64]:
    """log(1 + decayed count), by going over all events; an event that comes late counts as of when it came."""
    reading, now = [], stream[0][0]
    for n, (ts, row) in enumerate(stream, 1):
        now = max(now, ts)
        reading.append((now, n, row))
    total_VC = np.zeros((titles, CLOCKS))
    for ts, n, row in reading:
        total_VC[row] += [
            *(2 ** ((ts - reading[-1][0]) / half) for half in HALF_LIVES_MS),
            *(2 ** ((n - reading[-1][1]) / half) for half in HALF_LIVES_EVENTS),
        ]
    return np.log1p(total_VC)


def stream_of(start: int, hours: float, many: int = 200) -> list[tuple[int, int]]:
    """Events over some hours, a fifth of them late."""
    random = np.random.default_rng(1)
    times = start + np.sort(random.integers(0, int(hours * HOUR), many))
    times[random.random(many) < 0.2] -= 3 * HOUR
    return list(zip(times.tolist(), random.integers(0, 6, many).tolist(), strict=True))


@pytest.mark.parametrize("hours", [5, 30, 150, 3_000])  # the landmark of the fastest clock moves every 40
@pytest.mark.parametrize("start", [1_700_000_000_000, 0, -2_000_000_000_000])
def test_forward_decay_equals_plain_decay(hours: float, start: int) -> None:
    counters, stream = empty_counters(10), stream_of(start, hours)
    play(counters, stream)
    np.testing.assert_allclose(popularity(counters, 6), plain(stream, 6), rtol=1e-4, atol=1e-6)
    assert not popularity(counters, 10)[6:].any()


def test_a_long_silence_leaves_only_what_still_counts() -> None:
    counters = empty_counters(2)
    stream = [(10**12, 0), (10**12 + 1, 0), (10**12 + 20 * 365 * 24 * HOUR, 1)]
    play(counters, stream)
    got = popularity(counters, 2)
    np.testing.assert_allclose(got, plain(stream, 2), rtol=1e-4, atol=1e-6)
    assert np.isfinite(got).all()
    assert got[0, 0] == 0


def test_one_record_far_behind_moves_no_clock_back() -> None:
    counters = empty_counters(2)
    play(counters, [(10**12, 0), (10**12 + HOUR, 0)])
    before = counters.now_C.copy()
    tick(counters, 5, 2)
    assert (counters.now_C == before).all()


def test_pairs_count_what_followed_what_was_near_and_what_goes_together() -> None:
    counters = empty_counters(20)
    tick(counters, 1, 1)
    count_event(counters, gain(counters), 9, np.array([4, -1, 9, 7], np.int32), A_PLAY)
    assert pairs_of(counters.follow) == {(4, 9): 1.0}
    near = pairs_of(counters.near)
    assert near == {(4, 9): 1.0, (7, 9): pytest.approx(0.8)}  # an unknown title and the title itself take no place
    assert pairs_of(counters.together) == {(4, 9): 1.0, (9, 4): 1.0, (7, 9): 1.0, (9, 7): 1.0}


def test_nothing_follows_a_title_that_is_unknown() -> None:
    counters = empty_counters(20)
    tick(counters, 1, 1)
    count_event(counters, gain(counters), 9, np.array([-1, 4], np.int32), A_PLAY)
    assert pairs_of(counters.follow) == {}


def test_how_far_back_pairs_reach_is_bounded() -> None:
    counters = empty_counters(300, slots=(2, 20, 300))
    tick(counters, 1, 1)
    count_event(counters, gain(counters), 299, np.arange(200, dtype=np.int32), A_PLAY)
    assert [a for a, _ in pairs_of(counters.near)] == list(range(NEAR))
    together = pairs_of(counters.together)
    assert sorted(b for a, b in together if a == 299) == list(range(TOGETHER))


def some() -> Counters:
    random, counters = np.random.default_rng(2), empty_counters(8, slots=(3, 4, 5))
    for n in range(300):
        tick(counters, 10**12 + n * HOUR, n + 1)
        kind = EventKind(float(random.choice([-0.5, 1.0, 1.5])), int(random.integers(600)))
        row, recent_L = int(random.integers(8)), random.integers(0, 8, 12).astype(np.int32)
        count_event(counters, gain(counters), row, recent_L, kind)
    return counters


def test_forgotten_rows_count_nothing_and_are_named_nowhere() -> None:
    counters = some()
    before, quiet_V, was = popularity(counters, 8), quiet(counters, 8), some()
    evict_titles(counters, np.array([1, 6]))
    after = popularity(counters, 8)
    assert not after[[1, 6]].any()
    assert not counters.stage_VB[[1, 6]].any()
    assert not counters.liking_V[[1, 6]].any()
    assert (quiet(counters, 8)[[1, 6]] == quiet(empty_counters(2), 2)).all()
    others = [0, 2, 3, 4, 5, 7]
    assert (after[others] == before[others]).all()
    assert (quiet(counters, 8)[others] == quiet_V[others]).all()
    assert (counters.stage_VB[others] == was.stage_VB[others]).all()
    assert (counters.liking_V[others] == was.liking_V[others]).all()
    for pairs in (counters.follow, counters.near, counters.together):
        assert not np.isin(pairs.to_VK, [1, 6]).any()
        assert not pairs.total_V[[1, 6]].any()


def test_growing_and_a_restart_change_no_number() -> None:
    counters = some()
    state = counters_state(counters, 8)
    wide, loaded = grown(counters, 12), empty_counters(12, slots=(3, 4, 5))
    load_counters(loaded, state)
    kept = counters_state(some(), 8)
    for one in (wide, loaded):
        assert len(one.popular_VC) == 12
        tick(one, 10**12 + 301 * HOUR, 301)
        count_event(one, gain(one), 11, np.array([10, 3], np.int32), EventKind(1.5, 7))
    for name in ("popular_VC", "stage_VB", "last_V", "liking_V"):
        assert (getattr(wide, name) == getattr(loaded, name)).all()
        assert (state[name] == kept[name]).all()
    assert (wide.stage_VB[11].tolist(), wide.liking_V[11]) == ([0, 1, 0, 0, 0, 0], 1.5)
    for name in ("follow", "near", "together"):
        for a, b, c, d in zip(getattr(wide, name), getattr(loaded, name), state[name], kept[name], strict=True):
            assert (a == b).all()
            assert (c == d).all()  # a state that was taken is a copy
    assert pairs_of(wide.follow)[10, 11] == 1.0


def test_a_stage_of_life_ends_before_the_event_that_is_named() -> None:
    assert [activity_bucket(n) for n in (0, 4, 5, 14, 15, 49, 50, 149, 150, 499, 500, 10**6)] == [
        *(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5),
    ]
    counters = empty_counters(3)
    for row, events in ((1, 0), (1, 4), (1, 5), (2, 500), (2, 10**6)):
        tick(counters, 1, 1)
        count_event(counters, gain(counters), row, NOTHING, EventKind(1.0, events))
    assert counters.stage_VB.tolist() == [[0] * 6, [2, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 2]]
    assert counters.stage_VB.shape[1] == len(STAGES) + 1


@pytest.mark.parametrize("start", [1_700_000_000_000, 0, -2_000_000_000_000])
def test_a_title_is_quiet_since_its_last_event_however_late_that_came(start: int) -> None:
    counters = empty_counters(4)
    play(counters, [(start, 0), (start + 2 * HOUR, 1), (start + 5 * HOUR, 2), (start + HOUR, 1)])
    never = np.log1p(100_000)
    assert quiet(counters, 4).tolist() == pytest.approx([np.log1p(5), 0, 0, never])
    tick(counters, start + 8 * HOUR, 5)
    assert quiet(counters, 4).tolist() == pytest.approx([np.log1p(8), np.log1p(3), np.log1p(3), never])
    assert len(quiet(counters, 2)) == 2


def test_the_liking_of_a_few_events_is_drawn_to_the_mean_of_all() -> None:
    counters, count_V = empty_counters(4), np.array([10, 1, 0], np.float32)
    tick(counters, 1, 1)
    for _ in range(10):
        count_event(counters, gain(counters), 0, NOTHING, EventKind(1.5, 0))
    assert liked(counters, count_V[:1]).tolist() == pytest.approx([1.5])
    count_event(counters, gain(counters), 1, NOTHING, EventKind(-0.5, 0))
    mean = (10 * 1.5 - 0.5) / 11
    wanted = [(15 + 5 * mean) / 15, (-0.5 + 5 * mean) / 6, mean]
    assert liked(counters, count_V).tolist() == pytest.approx(wanted)
    assert liked(empty_counters(2), np.zeros(2, np.float32)).tolist() == [0, 0]
