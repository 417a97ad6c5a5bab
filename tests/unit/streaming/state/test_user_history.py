"""A user's history: order, bounds, duplicates, and that cuts change nothing."""

import pickle
import random
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import pairwise

import pytest

from model.actions import ACTIONS
from streaming.kafka.client import StreamError
from streaming.records import Activity
from streaming.state.user_history import IDS, SHOWN, Row, UserEvent, UserHistory

PLAY = ACTIONS["play"].code


def arrival(ts: int, title: str = "t", event_id: str | None = None, offset: int = 0, action: int = PLAY) -> UserEvent:
    return UserEvent("u", title, ts, action, event_id, 3, offset, 1_700_000_000_000 + offset)


def feed(history: UserHistory, arrivals: list[UserEvent], cut: int) -> tuple[list[Row], list[Activity]]:
    """Apply arrivals in batches of `cut`, with a snapshot and a restart after each."""
    rows, activities = [], []
    for start in range(0, len(arrivals), cut):
        rows += [row for one in arrivals[start : start + cut] if (row := history.apply(one))]
        if history.new:
            activities.append(history.activity("u"))
        history = UserHistory(history.size, pickle.loads(pickle.dumps(history.snapshot())))
    return rows, activities


def test_a_row_holds_the_features_right_after_its_event() -> None:
    history = UserHistory()
    history.apply(arrival(1_000, "a", offset=7))
    row = history.apply(arrival(2_000, "b", offset=8, action=ACTIONS["rated high"].code))
    assert row == {
        "user_id": "u",
        "event_timestamp": datetime(1970, 1, 1, 0, 0, 2, 2, UTC),  # newest time and the count in microseconds
        "created": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=1_700_000_000_008),
        "event_count": 2,
        "last_title": "b",
        "last_action": "rated high",
        "last_event_ms": 2_000,
        "recent_titles": ["b", "a"],
        "recent_actions": [10, 3],
        "recent_ms": [2_000, 1_000],
        "title": "b",
        "action": "rated high",
        "event_ms": 2_000,
        "partition": 3,
        "offset": 8,
    }


def test_a_late_event_is_put_at_its_place_and_found_there() -> None:
    history = UserHistory()
    for ts, title in ((10, "a"), (30, "c"), (20, "b"), (40, "d")):
        history.apply(arrival(ts, title, offset=ts))
    activity = history.activity("u")
    assert activity.titles == ["a", "b", "c", "d"]
    assert activity.times == [10, 20, 30, 40]
    assert [(new.index, new.offset) for new in activity.new] == [(0, 10), (2, 30), (1, 20), (3, 40)]
    assert activity.count == 4


def test_events_of_one_time_keep_the_order_they_came_in() -> None:
    history = UserHistory()
    for title in ("a", "b", "c"):
        history.apply(arrival(5, title))
    assert history.activity("u").titles == ["a", "b", "c"]


def test_the_history_is_bounded_and_the_count_is_not() -> None:
    history = UserHistory(3)
    _, activities = feed(history, [arrival(ts, f"t{ts}") for ts in range(10)], cut=1)
    assert activities[-1].titles == ["t7", "t8", "t9"]
    assert activities[-1].count == 10
    assert all(len(activity.titles) <= 3 for activity in activities)


def test_an_event_too_old_for_a_full_history_counts_and_is_learned_and_then_forgotten() -> None:
    history = UserHistory(3)
    history.apply(arrival(10, "t10"))
    history.apply(arrival(20, "t20"))
    history.apply(arrival(30, "t30"))
    history.activity("u")
    row = history.apply(arrival(1, "old", offset=9))
    assert row is not None
    assert row["event_count"] == 4
    assert row["recent_titles"] == ["t30", "t20", "t10"]
    activity = history.activity("u")
    (new,) = activity.new
    assert (activity.titles[new.index], new.offset) == ("old", 9)
    assert history.titles == ["t10", "t20", "t30"]


def test_an_event_id_seen_before_is_dropped_also_after_a_restart() -> None:
    history = UserHistory()
    assert history.apply(arrival(1, event_id="x"))
    assert history.apply(arrival(1, event_id="x")) is None
    history.activity("u")
    history = UserHistory(state=history.snapshot())
    assert history.apply(arrival(9, event_id="x")) is None
    assert history.count == 1


def test_events_without_an_id_are_never_duplicates() -> None:
    history = UserHistory()
    assert history.apply(arrival(1))
    assert history.apply(arrival(1))
    assert history.count == 2


def test_the_ids_remembered_are_bounded_and_the_newest() -> None:
    history = UserHistory()
    for n in range(IDS + 1):
        assert history.apply(arrival(n, event_id=str(n)))
    assert len(history.ids) == IDS * 8
    assert history.apply(arrival(0, event_id="1")) is None
    assert history.apply(arrival(0, event_id="0")) is not None


def test_a_hash_across_two_remembered_ones_is_not_a_duplicate() -> None:
    across = bytes(4) + blake2b(b"x", digest_size=8).digest() + bytes(4)
    assert UserHistory(state=(1, 0, (), b"", b"", across)).apply(arrival(1, event_id="x"))


def test_rows_shown_are_the_newest_fifty() -> None:
    history = UserHistory()
    row = [history.apply(arrival(ts, str(ts))) for ts in range(SHOWN + 5)][-1]
    assert row is not None
    assert row["recent_titles"] == [str(ts) for ts in range(SHOWN + 4, 4, -1)]


@pytest.mark.parametrize("size", [5, 70])
@pytest.mark.parametrize("cut", [1, 2, 7, 40])
def test_cuts_and_restarts_change_no_row_and_no_end_state(size: int, cut: int) -> None:
    draw = random.Random(size * cut)
    arrivals = [arrival(draw.randrange(100), str(n), str(draw.randrange(150)), n) for n in range(200)]
    rows, activities = feed(UserHistory(size), arrivals, cut)
    expected, _ = feed(UserHistory(size), arrivals, 1)
    assert rows == expected
    assert len(rows) < 200  # some were duplicates
    assert [new.offset for activity in activities for new in activity.new] == [row["offset"] for row in rows]
    for activity in activities:
        assert activity.times == sorted(activity.times)
        assert len(activity.titles) <= size + cut
        assert all(activity.titles[new.index] == str(new.offset) for new in activity.new)
    newest = sorted((row["event_ms"], n, row["title"]) for n, row in enumerate(rows))[-size:]
    assert activities[-1].titles[-size:] == [title for _, _, title in newest]


def test_stamps_rise_with_each_event_whatever_their_times() -> None:
    draw = random.Random(1)
    rows, _ = feed(UserHistory(20), [arrival(draw.randrange(50), str(n)) for n in range(300)], 13)
    stamps = [row["event_timestamp"] for row in rows]
    assert all(earlier < later for earlier, later in pairwise(stamps))


def test_a_snapshot_does_not_change_with_the_history() -> None:
    history = UserHistory()
    history.apply(arrival(1, "a"))
    history.activity("u")
    state = history.snapshot()
    history.apply(arrival(2, "b"))
    assert UserHistory(state=state).titles == ["a"]


def test_a_snapshot_of_a_newer_format_is_refused() -> None:
    with pytest.raises(StreamError, match="format 99 was written by a newer version: run that one"):
        UserHistory(state=(99, 0, (), b"", b"", b""))


def test_times_before_1970_have_stamps_too() -> None:
    row = UserHistory().apply(arrival(-2_208_988_800_000))
    assert row is not None
    assert row["event_timestamp"] == datetime(1900, 1, 1, 0, 0, 0, 1, UTC)
