"""Lists of several ages: what they are made from, which one a reader picks, and the target's rank in them."""

from collections.abc import Sequence

import numpy as np

from infra.experiments.stale_lists import (
    HOUR_MS,
    ListContext,
    ListRead,
    backbone_ranks,
    events_ago,
    final_list_ranks,
    horizon_for,
    hours_ago,
    read_list,
)
from model.actions import ACTIONS
from model.pipeline import RankingRequest
from model.signals.candidates import Candidates
from model.signals.ranker import Ranker
from model.signals.table import COLUMN, SIGNALS
from model.state.stream_state import History
from tests.support.learner import RANKER


def history_of(rows: Sequence[int], hours: Sequence[int] = (), actions: Sequence[str] = ()) -> History:
    """A history of clicks, one per hour by default."""
    times, names = hours or range(len(rows)), actions or ["click"] * len(rows)
    codes = np.array([ACTIONS[action].code for action in names], np.int64)
    return History("u", np.array(rows, np.int64), np.array(times, np.int64) * HOUR_MS, codes)


def read_later(target: int, history: History, seen: Sequence[int], k: int, repeats: bool = False) -> ListRead:
    """A list made `k` events ago."""
    request = RankingRequest(history, 99 * HOUR_MS, target, ACTIONS["click"].code, 0, len(history.rows_L))
    return read_list(request, events_ago(history, k), np.array(seen, np.int32), repeats)


def test_list_of_some_events_ago_misses_the_last_events() -> None:
    history = history_of([7, 8, 9], hours=[1, 5, 6])
    for k, rows, hour in ((0, [7, 8, 9], 6), (1, [7, 8], 5), (2, [7], 1)):
        known = events_ago(history, k)
        assert (known.history.rows_L.tolist(), known.made_at, known.missed) == (rows, hour * HOUR_MS, k)


def test_list_of_some_hours_ago_has_only_older_events() -> None:
    history = history_of([7, 8, 9], hours=[1, 5, 6])
    for hours, rows in ((0, [7, 8, 9]), (1, [7, 8, 9]), (2, [7, 8]), (3, [7]), (6, [7]), (12, [])):
        known = hours_ago(history, 7 * HOUR_MS, hours)
        assert (known.history.rows_L.tolist(), known.made_at) == (rows, (7 - hours) * HOUR_MS)
        assert known.missed == 3 - len(rows)


def test_reader_picks_the_longest_horizon_that_has_passed() -> None:
    assert [horizon_for((0, 3, 10), missed) for missed in (0, 2, 3, 9, 10, 400)] == [0, 0, 3, 3, 10, 10]


def test_removing_titles_seen_since_moves_later_titles_up() -> None:
    signals_CF = np.zeros((5, len(SIGNALS)), np.float32)
    signals_CF[:, COLUMN["text recent"]] = [5, 4, 3, 2, 1]
    score_V = np.arange(10, 0, -1, dtype=np.float32)
    ranker = Ranker(RANKER)  # untrained, so the linear score decides

    def ranks(target: int, *since: int) -> tuple[float, float]:
        found = Candidates(np.arange(5), 5, signals_CF, score_V[:5], np.arange(10, dtype=np.int32), score_V)
        known = ListContext(history_of([]), 0, len(since))
        return final_list_ranks(
            found, ranker, ListRead(target, known, np.zeros(0, np.int32), np.array(since, np.int32))
        )

    assert ranks(3) == (4, 4)
    assert ranks(3, 0, 4) == (3, 4)  # a title behind the target does not move it
    assert ranks(7) == (8, 8)  # behind the shortlist
    assert ranks(7, 0, 6, 9) == (6, 8)


def test_list_excludes_seen_titles_and_reader_titles_seen_since() -> None:
    score_V = np.array([1, 2, 3, 4, 5, 6, 7, 8], np.float32)
    history = history_of([7, 3, 6, 5, 7])  # 7 occurs twice
    for k, since, ranks in ((0, [], (2, 2)), (2, [5], (2, 3)), (3, [5, 6], (2, 4)), (4, [3, 5, 6], (2, 5))):
        read = read_later(2, history, [7, 3, 6, 5, -1], k)
        assert (read.since.tolist(), read.blocked.tolist()) == (since, sorted({3, 5, 6, 7} - set(since)))
        assert backbone_ranks(score_V.copy(), read) == ranks  # title 4 ranks above title 2 in all of them
    read = read_later(2, history, [7, 3, 6, 5, -1], 4, repeats=True)
    assert backbone_ranks(score_V.copy(), read) == (6, 6)
    assert len(read.since) == len(read.blocked) == 0


def test_impressions_do_not_make_a_title_seen() -> None:
    score_V = np.array([1, 2, 3, 4], np.float32)
    history = history_of([1, 2], actions=["click", "impression"])
    read = read_later(2, history, seen=[1], k=1)
    assert backbone_ranks(score_V.copy(), read) == (2, 2)  # behind 3
    assert read.since.tolist() == []
    disliked = history_of([1, 2, 3], actions=["click", "click", "dislike"])
    assert read_later(0, disliked, seen=[1, 2], k=2).since.tolist() == [2]
    shown_first = history_of([2, 1, 2], actions=["impression", "click", "click"])
    read = read_later(0, shown_first, seen=[1, 2], k=1)
    assert (read.since.tolist(), read.blocked.tolist()) == ([2], [1])  # 2 was in the list, because it had not been seen
