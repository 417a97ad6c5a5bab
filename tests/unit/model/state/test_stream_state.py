"""Tests of the stream state: its parts grow, evict and restart together."""

import numpy as np

from model.settings import StreamStateSettings
from model.signals.inputs import title_signals
from model.state.stream_state import WAITING_SHARE, History, StreamState
from tests.support.learner import (
    D_TEXT,
    LARGE_STATE,
    PLAY,
    SMALL_STATE,
    random_unit_vectors,
    state_differences,
    title_metadata,
)

HOUR_MS = 3_600_000


def history(stream_state: StreamState, user: str, titles: list[str]) -> History:
    rows_L = stream_state.catalog.rows_of(titles)
    times_L = np.arange(len(titles), dtype=np.int64) * HOUR_MS
    return History(user, rows_L, times_L, np.full(len(titles), PLAY, np.int64))


def state_with_titles(titles: int, settings: StreamStateSettings = LARGE_STATE) -> StreamState:
    stream_state = StreamState(settings)
    vectors = random_unit_vectors(np.random.default_rng(1), titles)
    stream_state.launch(title_metadata(f"t{n}", text) for n, text in enumerate(vectors))
    return stream_state


def test_event_is_counted_in_every_part() -> None:
    stream_state = state_with_titles(4)
    stream_state.count_event(history(stream_state, "u", []), 2, 10 * HOUR_MS)
    stream_state.count_event(history(stream_state, "u", ["t2"]), 3, 11 * HOUR_MS)
    assert stream_state.events == 2
    assert stream_state.catalog.count_V[:4].tolist() == [0, 0, 1, 1]
    assert stream_state.user_store.seen_by("u").tolist() == [2, 3]
    assert stream_state.counters.transitions.to_VK[2, 0] == 3
    assert stream_state.counters.now_Z[[0, -1]].tolist() == [11 * HOUR_MS, 2]


def test_parts_grow_together_and_keep_their_counts() -> None:
    stream_state = state_with_titles(3)
    stream_state.count_event(history(stream_state, "u", ["t0"]), 1, 5)
    stream_state.launch(title_metadata(f"more {n}") for n in range(2_100))
    sizes = {
        stream_state.catalog.capacity,
        len(stream_state.counters.popularity_VZ),
        len(stream_state.user_store.interactions.title_count_V),
    }
    assert sizes == {4096}
    stream_state.count_event(history(stream_state, "u", ["t0", "t1"]), stream_state.ensure_row("more 2099"), 6)
    assert stream_state.counters.transitions.to_VK[:2, 0].tolist() == [1, stream_state.ensure_row("more 2099")]
    assert len(stream_state.catalog.candidate_V) == 2103


def test_unlaunched_title_gets_its_row_from_enough_distinct_users() -> None:
    stream_state = state_with_titles(2)
    for user in ("a", "b", "b", "a"):
        assert not stream_state.admit("unlaunched", user)
    assert stream_state.catalog.rows_of(["unlaunched"]).tolist() == [-1]
    assert (len(stream_state.admission), stream_state.waiting_title_events) == (1, 4)
    assert stream_state.admit("unlaunched", "c")
    assert stream_state.admit("unlaunched", "c")
    assert stream_state.catalog.rows_of(["unlaunched"]).tolist() == [2]
    assert (len(stream_state.admission), stream_state.waiting_title_events) == (0, 4)


def test_launch_gives_a_waiting_title_its_row_at_once() -> None:
    stream_state = state_with_titles(2)
    assert not stream_state.admit("early", "a")
    stream_state.launch([title_metadata("early")])
    assert len(stream_state.admission) == 0
    assert stream_state.admit("early", "a")


def test_withdrawal_of_an_unknown_title_gives_it_no_row() -> None:
    stream_state = state_with_titles(2)
    stream_state.launch([title_metadata("invented", withdrawn=True), title_metadata("t1", withdrawn=True)])
    assert list(stream_state.catalog.rows) == ["t0", "t1"]
    assert stream_state.catalog.candidate_V.tolist() == [True, False]


def test_waiting_titles_are_bounded_by_max_titles() -> None:
    stream_state = StreamState(StreamStateSettings(d_text=D_TEXT, max_titles=200))
    for n in range(500):
        stream_state.admit(f"invented {n}", "a")
    assert (len(stream_state.admission), len(stream_state.catalog)) == (200 // WAITING_SHARE, 0)


def test_erased_user_does_not_admit_a_title() -> None:
    stream_state = state_with_titles(1)
    for user in ("a", "b"):
        stream_state.admit("unlaunched", user)
    stream_state.erase_user("a")
    assert not stream_state.admit("unlaunched", "c")


def test_evicted_title_leaves_no_counts_in_any_part() -> None:
    stream_state = state_with_titles(SMALL_STATE.max_titles + 4, SMALL_STATE)
    for n in range(6):
        stream_state.count_event(history(stream_state, "u", [f"t{k}" for k in range(n)]), n, n)
    rows = stream_state.evict_titles()
    assert rows.tolist() == [0, 1, 2, 3]  # `count_event` alone does not mark a title as used
    assert stream_state.user_store.seen_by("u").tolist() == [-1, -1, -1, -1, 4, 5]
    counters = stream_state.counters
    for pairs in (counters.transitions, counters.session_cooccurrence, counters.cooccurrence):
        assert not np.isin(pairs.to_VK, rows).any()
    assert not counters.popularity_VZ[rows].any()
    assert stream_state.user_store.interactions.title_count_V[:6].tolist() == [0, 0, 0, 0, 1, 1]
    assert not (stream_state.user_store.interactions.title_users_VI[rows] >= 0).any()
    assert not np.isin(stream_state.catalog.text_neighbors.to_VK, rows).any()
    assert stream_state.evict_titles().tolist() == []
    assert stream_state.evicted_titles == 4


def add_events(stream_state: StreamState, random: np.random.Generator, events: int) -> None:
    histories: dict[str, list[str]] = {}
    for n in range(events):
        user, title = f"u{random.integers(15)}", f"t{random.integers(45)}"
        row = stream_state.ensure_row(title)
        stream_state.sequence += 1
        titles = histories.setdefault(user, [])
        stream_state.count_event(history(stream_state, user, titles[-12:]), row, 10**12 + n * HOUR_MS)
        titles.append(title)
        if n % 20 == 0:
            text_E = random_unit_vectors(random, 1, D_TEXT)[0]
            stream_state.launch([title_metadata(f"t{random.integers(45)}", text_E)])
            stream_state.evict_titles()


def test_restart_changes_nothing_that_follows() -> None:
    random, original, restored = np.random.default_rng(2), StreamState(SMALL_STATE), StreamState(SMALL_STATE)
    add_events(original, random, 250)
    original.admit("waiting", "u1")
    state = original.state_dict()
    restored.load_state_dict(state)
    assert state_differences(restored.state_dict(), state) == []
    for stream_state in (original, restored):
        add_events(stream_state, np.random.default_rng(3), 150)
    assert state_differences(restored.state_dict(), original.state_dict()) == []
    assert title_signals(original).static_VF.tobytes() == title_signals(restored).static_VF.tobytes()
