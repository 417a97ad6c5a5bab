"""Tests of the signals' inputs: the query of a user and the arrays of all titles."""

import numpy as np

from model.actions import ACTIONS, LIKING
from model.signals.inputs import inverse_root_count, text_weights, title_signals, user_query
from model.signals.table import STATIC_SIGNALS
from model.state.stream_state import History, StreamState
from tests.support.learner import LARGE_STATE, PLAY, random_unit_vectors, title_metadata

HOUR_MS = 3_600_000


def history(stream_state: StreamState, user: str, titles: list[str], actions: list[int] | None = None) -> History:
    rows_L = stream_state.catalog.rows_of(titles)
    times_L = np.arange(len(titles), dtype=np.int64) * HOUR_MS
    return History(user, rows_L, times_L, np.array(actions or [PLAY] * len(titles), np.int64))


def state_with_titles(titles: int) -> StreamState:
    stream_state = StreamState(LARGE_STATE)
    vectors = random_unit_vectors(np.random.default_rng(1), titles)
    stream_state.launch(title_metadata(f"t{n}", text) for n, text in enumerate(vectors))
    return stream_state


def test_query_holds_known_titles_newest_first() -> None:
    stream_state = state_with_titles(5)
    high, low = ACTIONS["rated high"].code, ACTIONS["rated low"].code
    events = history(stream_state, "u", ["t1", "unknown", "t3", "t1"], [high, PLAY, low, PLAY])
    query = user_query(stream_state, events, now=9 * HOUR_MS)
    assert query.recent_L.tolist() == [1, 3, 1]
    assert query.times_L.tolist() == [3 * HOUR_MS, 2 * HOUR_MS, 0]
    assert query.liking_L.tolist() == [np.float32(LIKING[code]) for code in (PLAY, low, high)]
    assert (query.now, query.user_index, query.user_events, query.horizon) == (9 * HOUR_MS, -1, 0, 0)


def test_query_history_is_bounded() -> None:
    stream_state = state_with_titles(30)
    query = user_query(stream_state, history(stream_state, "u", [f"t{n}" for n in range(30)]), now=0)
    assert query.recent_L.tolist() == list(range(29, 29 - LARGE_STATE.history, -1))


def test_query_with_horizon_excludes_last_events_from_user_events() -> None:
    stream_state = state_with_titles(5)
    for n in range(4):
        stream_state.count_event(history(stream_state, "u", [f"t{k}" for k in range(n)]), n, n)
    before = history(stream_state, "u", ["t0"])
    assert [user_query(stream_state, before, 0, horizon).user_events for horizon in (0, 3, 9)] == [4, 1, 0]
    assert user_query(stream_state, before, 0).user_index == stream_state.user_store.user_index("u") >= 0


def test_title_signals_equal_the_counted_events() -> None:
    stream_state = state_with_titles(5)
    withdrawn, no_text = title_metadata("t4", withdrawn=True), title_metadata("no text", None, ["drama"], 1999, 7)
    stream_state.launch([withdrawn, no_text])
    stream_state.ensure_row("not launched")
    for n in range(3):
        stream_state.count_event(history(stream_state, f"u{n}", []), 1, n)
    stream_state.count_event(history(stream_state, "u9", []), 2, 3)
    stream_state.refresh()
    titles = title_signals(stream_state)
    assert titles.candidate_V.tolist() == [True] * 4 + [False, True, False]
    assert (titles.inverse_distance_V > 0).tolist() == [True] * 5 + [False, False]
    static = dict(zip(STATIC_SIGNALS, titles.static_VF.T, strict=True))
    roots = [inverse_root_count(titles.interactions, row) for row in range(7)]
    np.testing.assert_allclose(roots, 1 / np.sqrt([1, 4, 2, 1, 1, 1, 1]), rtol=1e-6)
    np.testing.assert_allclose(static["popularity total"], np.log1p([0, 3, 1, 0, 0, 0, 0]))
    assert static["no events"].tolist() == [1, 0, 0, 1, 1, 1, 1]
    assert static["one event"].tolist() == [0, 0, 1, 0, 0, 0, 0]
    weight_K = np.zeros(titles.text_cosine_VK.shape[1], np.float32)
    for row in range(7):
        text_weights(titles, row, weight_K)
        assert weight_K.sum() < 1
    assert (titles.year_V[5], titles.released_V[5]) == (1999, 7)
