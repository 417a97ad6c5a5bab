"""The memory: its parts grow, evict and restart together, and a question holds what the asker's past says."""

import numpy as np
from numpy.typing import NDArray

from model.actions import ACTIONS, LIKING
from model.signals.table import STATIC
from model.state.stream_state import History, MemorySettings, StreamState
from tests.support.learner import D_TEXT, MEMORY, PLAY, ROOMY, differences, directions, launched

HOUR = 3_600_000


def history(stream_state: StreamState, user: str, titles: list[str], actions: list[int] | None = None) -> History:
    rows_L = stream_state.catalog.find(titles)
    times_L = np.arange(len(titles), dtype=np.int64) * HOUR
    return History(user, rows_L, times_L, np.array(actions or [PLAY] * len(titles), np.int64))


def memory_of(titles: int, settings: MemorySettings = ROOMY) -> StreamState:
    stream_state = StreamState(settings)
    stream_state.launch(launched(f"t{n}", text) for n, text in enumerate(directions(np.random.default_rng(1), titles)))
    return stream_state


def test_a_question_holds_the_known_titles_newest_first() -> None:
    stream_state = memory_of(5)
    high, low = ACTIONS["rated high"].code, ACTIONS["rated low"].code
    query = stream_state.query(
        history(stream_state, "u", ["t1", "gone", "t3", "t1"], [high, PLAY, low, PLAY]), now=9 * HOUR
    )
    assert query.recent_L.tolist() == [1, 3, 1]
    assert query.times_L.tolist() == [3 * HOUR, 2 * HOUR, 0]
    assert query.liking_L.tolist() == [np.float32(LIKING[code]) for code in (PLAY, low, high)]
    assert (query.now, query.user_index, query.events, query.delay) == (9 * HOUR, -1, 0, 0)


def test_a_question_reads_no_more_of_the_past_than_is_set() -> None:
    stream_state = memory_of(30)
    query = stream_state.query(history(stream_state, "u", [f"t{n}" for n in range(30)]), now=0)
    assert query.recent_L.tolist() == list(range(29, 29 - ROOMY.history, -1))


def test_a_delayed_question_does_not_know_the_last_events_of_the_asker() -> None:
    stream_state = memory_of(5)
    for n in range(4):
        stream_state.count(history(stream_state, "u", [f"t{k}" for k in range(n)]), n, n)
    before = history(stream_state, "u", ["t0"])
    assert [stream_state.query(before, 0, delay).events for delay in (0, 3, 9)] == [4, 1, 0]
    assert stream_state.query(before, 0).user_index == stream_state.user_store.user_index("u") >= 0


def test_an_event_reaches_every_part() -> None:
    stream_state = memory_of(4)
    stream_state.count(history(stream_state, "u", []), 2, 10 * HOUR)
    stream_state.count(history(stream_state, "u", ["t2"]), 3, 11 * HOUR)
    assert stream_state.events == 2
    assert stream_state.catalog.count_V[:4].tolist() == [0, 0, 1, 1]
    assert stream_state.user_store.seen_by("u").tolist() == [2, 3]
    assert stream_state.counters.follow.to_VK[2, 0] == 3
    assert stream_state.counters.now_C[[0, -1]].tolist() == [11 * HOUR, 2]


def test_what_signals_read_of_the_titles_is_what_was_counted() -> None:
    stream_state = memory_of(5)
    stream_state.launch([launched("t4", withdrawn=True), launched("no text", None, ["drama"], 1999, 7)])
    stream_state.row("early")
    for n in range(3):
        stream_state.count(history(stream_state, f"u{n}", []), 1, n)
    stream_state.count(history(stream_state, "u9", []), 2, 3)
    titles = stream_state.titles()
    assert titles.candidate_V.tolist() == [True] * 4 + [False, True, False]
    assert titles.has_text_V.tolist() == [True] * 5 + [False, False]
    static = dict(zip(STATIC, titles.static_VS.T, strict=True))
    np.testing.assert_allclose(titles.inv_sqrt_count_V, 1 / np.sqrt([1, 4, 2, 1, 1, 1, 1]))
    np.testing.assert_allclose(static["popular ever"], np.log1p([0, 3, 1, 0, 0, 0, 0]))
    assert static["no event yet"].tolist() == [1, 0, 0, 1, 1, 1, 1]
    assert static["one event"].tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert (titles.share_VK.sum(1) < 1).all()
    assert (titles.year_V[5], titles.released_V[5]) == (1999, 7)


def test_the_parts_grow_together_and_keep_what_they_hold() -> None:
    stream_state = memory_of(3)
    stream_state.count(history(stream_state, "u", ["t0"]), 1, 5)
    stream_state.launch(launched(f"more {n}") for n in range(2_100))
    sizes = {
        stream_state.catalog.capacity,
        len(stream_state.counters.popular_VC),
        len(stream_state.user_store.interactions.title_count_V),
    }
    assert sizes == {4096}
    stream_state.count(history(stream_state, "u", ["t0", "t1"]), stream_state.row("more 2099"), 6)
    assert stream_state.counters.follow.to_VK[:2, 0].tolist() == [1, stream_state.row("more 2099")]
    assert len(stream_state.scratch().mark_V) == len(stream_state.titles().candidate_V) == 2103


def test_titles_beyond_the_bound_are_cleared_everywhere() -> None:
    stream_state = memory_of(MEMORY.most_titles + 4, MEMORY)
    for n in range(6):
        stream_state.count(history(stream_state, "u", [f"t{k}" for k in range(n)]), n, n)
    rows = stream_state.make_room()
    assert rows.tolist() == [0, 1, 2, 3]  # not seen since they launched: counting is no mention
    assert stream_state.user_store.seen_by("u").tolist() == [-1, -1, -1, -1, 4, 5]
    for pairs in (stream_state.counters.follow, stream_state.counters.near, stream_state.counters.together):
        assert not np.isin(pairs.to_VK, rows).any()
    assert not stream_state.counters.popular_VC[rows].any()
    assert stream_state.user_store.interactions.title_count_V[:6].tolist() == [0, 0, 0, 0, 1, 1]
    assert not (stream_state.user_store.interactions.title_users_VA[rows] >= 0).any()
    assert not np.isin(stream_state.catalog.text_neighbors.to_VK, rows).any()
    assert stream_state.make_room().tolist() == []


def play(stream_state: StreamState, random: np.random.Generator, events: int) -> None:
    histories: dict[str, list[str]] = {}
    for n in range(events):
        user, title = f"u{random.integers(15)}", f"t{random.integers(45)}"
        row = stream_state.row(title)
        stream_state.sequence += 1
        titles = histories.setdefault(user, [])
        stream_state.count(history(stream_state, user, titles[-12:]), row, 10**12 + n * HOUR)
        titles.append(title)
        if n % 20 == 0:
            stream_state.launch([launched(f"t{random.integers(45)}", directions(random, 1, D_TEXT)[0])])
            stream_state.make_room()


def test_a_restart_changes_nothing_that_follows() -> None:
    random, one, other = np.random.default_rng(2), StreamState(MEMORY), StreamState(MEMORY)
    play(one, random, 250)
    state = one.state_dict()
    other.load_state_dict(state)
    assert differences(other.state_dict(), state) == []
    for stream_state in (one, other):
        play(stream_state, np.random.default_rng(3), 150)
    assert differences(other.state_dict(), one.state_dict()) == []
    assert equal(one.titles().static_VS, other.titles().static_VS)


def equal(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.tobytes() == b.tobytes()
