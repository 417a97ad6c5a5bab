"""A user's history: order, bounds, duplicates, and independence of how events are cut into batches."""

import pickle
import random
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import pairwise

import pytest

from features.limits import RECENT_EVENTS
from model.actions import ACTIONS
from streaming.records import Activity
from streaming.state.user_history import MAX_EVENT_IDS, UserEvent, UserHistory, UserRow

PLAY = ACTIONS["play"].code


def event(ts: int, title: str = "t", event_id: str | None = None, offset: int = 0, action: int = PLAY) -> UserEvent:
    return UserEvent("u", title, ts, action, event_id, 3, offset, 1_700_000_000_000 + offset)


def feed(history: UserHistory, events: list[UserEvent], batch: int) -> tuple[list[UserRow], list[Activity]]:
    """Apply events in batches of `batch`, with a snapshot and a restart after each."""
    rows, activities = [], []
    for start in range(0, len(events), batch):
        rows += [row for one in events[start : start + batch] if (row := history.apply(one))]
        if history.new:
            activities.append(history.activity("u"))
        history = UserHistory(history.size, pickle.loads(pickle.dumps(history.snapshot())))
    return rows, activities


def test_row_has_the_features_right_after_the_event() -> None:
    history = UserHistory()
    history.apply(event(1_000, "a", offset=7))
    row = history.apply(event(2_000, "b", offset=8, action=ACTIONS["rated high"].code))
    assert row == {
        "user_id": "u",
        "event_timestamp": datetime(1970, 1, 1, 0, 0, 2, 2, UTC),  # newest time plus the count in microseconds
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
        "oldest_created": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=1_700_000_000_007),
    }


def test_late_event_is_inserted_by_its_time() -> None:
    history = UserHistory()
    for ts, title in ((10, "a"), (30, "c"), (20, "b"), (40, "d")):
        history.apply(event(ts, title, offset=ts))
    activity = history.activity("u")
    assert activity.titles == ["a", "b", "c", "d"]
    assert activity.times == [10, 20, 30, 40]
    assert [(new.index, new.offset) for new in activity.new] == [(0, 10), (2, 30), (1, 20), (3, 40)]
    assert activity.count == 4


def test_events_of_one_time_keep_log_order() -> None:
    history = UserHistory()
    for title in ("a", "b", "c"):
        history.apply(event(5, title))
    assert history.activity("u").titles == ["a", "b", "c"]


def test_history_is_bounded_and_count_is_not() -> None:
    history = UserHistory(3)
    _, activities = feed(history, [event(ts, f"t{ts}") for ts in range(10)], batch=1)
    assert activities[-1].titles == ["t7", "t8", "t9"]
    assert activities[-1].count == 10
    assert all(len(activity.titles) <= 3 for activity in activities)


def test_event_too_old_for_full_history_is_still_published_once() -> None:
    history = UserHistory(3)
    history.apply(event(10, "t10"))
    history.apply(event(20, "t20"))
    history.apply(event(30, "t30"))
    history.activity("u")
    row = history.apply(event(1, "old", offset=9))
    assert row is not None
    assert row["event_count"] == 4
    assert row["recent_titles"] == ["t30", "t20", "t10"]
    activity = history.activity("u")
    (new,) = activity.new
    assert (activity.titles[new.index], new.offset) == ("old", 9)
    assert history.titles == ["t10", "t20", "t30"]


def test_duplicate_event_id_is_dropped_also_after_restart() -> None:
    history = UserHistory()
    assert history.apply(event(1, event_id="x"))
    assert history.apply(event(1, event_id="x")) is None
    history.activity("u")
    history = UserHistory(state=history.snapshot())
    assert history.apply(event(9, event_id="x")) is None
    assert history.count == 1


def test_events_without_id_are_never_duplicates() -> None:
    history = UserHistory()
    assert history.apply(event(1))
    assert history.apply(event(1))
    assert history.count == 2


def test_only_the_newest_event_ids_are_remembered() -> None:
    history = UserHistory()
    for n in range(MAX_EVENT_IDS + 1):
        assert history.apply(event(n, event_id=str(n)))
    assert len(history.ids) == MAX_EVENT_IDS * 8
    assert history.apply(event(0, event_id="1")) is None
    assert history.apply(event(0, event_id="0")) is not None


def test_match_across_two_id_hashes_is_no_duplicate() -> None:
    across = bytes(4) + blake2b(b"x", digest_size=8).digest() + bytes(4)
    assert UserHistory(state=(0, 0, (), b"", b"", b"", b"", across, 0)).apply(event(1, event_id="x"))


def test_feature_row_has_only_recent_events() -> None:
    history = UserHistory()
    row = [history.apply(event(ts, str(ts))) for ts in range(RECENT_EVENTS + 5)][-1]
    assert row is not None
    assert row["recent_titles"] == [str(ts) for ts in range(RECENT_EVENTS + 4, 4, -1)]


@pytest.mark.parametrize("size", [5, 70])
@pytest.mark.parametrize("batch", [1, 2, 7, 40])
def test_batching_and_restarts_change_no_row(size: int, batch: int) -> None:
    draw = random.Random(size * batch)
    events = [event(draw.randrange(100), str(n), str(draw.randrange(150)), n) for n in range(200)]
    rows, activities = feed(UserHistory(size), events, batch)
    expected, _ = feed(UserHistory(size), events, 1)
    assert rows == expected
    assert len(rows) < 200  # some were duplicates
    assert [new.offset for activity in activities for new in activity.new] == [row["offset"] for row in rows]
    for activity in activities:
        assert activity.times == sorted(activity.times)
        assert len(activity.titles) <= size + batch
        assert all(activity.titles[new.index] == str(new.offset) for new in activity.new)
    newest = sorted((row["event_ms"], n, row["title"]) for n, row in enumerate(rows))[-size:]
    assert activities[-1].titles[-size:] == [title for _, _, title in newest]


def test_timestamps_rise_with_each_event() -> None:
    draw = random.Random(1)
    rows, _ = feed(UserHistory(20), [event(draw.randrange(50), str(n)) for n in range(300)], 13)
    timestamps = [row["event_timestamp"] for row in rows]
    assert all(earlier < later for earlier, later in pairwise(timestamps))


def test_snapshot_does_not_change_with_the_history() -> None:
    history = UserHistory()
    history.apply(event(1, "a"))
    history.activity("u")
    state = history.snapshot()
    history.apply(event(2, "b"))
    assert UserHistory(state=state).titles == ["a"]


def test_erasure_removes_events_by_append_time() -> None:
    history = UserHistory()
    for ts, offset in ((30, 0), (10, 2), (20, 1), (5, 3)):
        history.apply(event(ts, f"t{ts}", offset=offset))
    history.activity("u")
    history, rows = history.erase("u", 1_700_000_000_001)
    without = UserHistory()
    assert rows == [without.apply(event(ts, f"t{ts}", offset=offset)) for ts, offset in ((10, 2), (5, 3))]
    assert history.present_row("u")["recent_titles"] == ["t10", "t5"]
    activity = history.activity("u")
    assert (activity.count, activity.titles, activity.times) == (2, ["t5", "t10"], [5, 10])
    assert [(new.index, new.offset, new.appended) for new in activity.new] == [(0, 3, 1_700_000_000_003)]


def test_erased_event_id_can_be_used_again() -> None:
    history = UserHistory()
    history.apply(event(1, event_id="x"))
    history.activity("u")
    history, rows = history.erase("u", 1_700_000_000_000)
    assert (history.count, rows) == (0, [])
    assert history.apply(event(1, event_id="x"))


def test_times_before_1970_have_timestamps() -> None:
    row = UserHistory().apply(event(-2_208_988_800_000))
    assert row is not None
    assert row["event_timestamp"] == datetime(1900, 1, 1, 0, 0, 0, 1, UTC)
