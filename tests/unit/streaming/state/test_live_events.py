"""The events that a served version counts: those after its position, each once, none after a rollback."""

import numpy as np
import pytest

from model.actions import ACTIONS
from streaming.records import Activity, NewEvent
from streaming.state import live_events
from streaming.state.live_events import MAX_HISTORY, LiveEvents
from streaming.state.publisher import Publisher
from tests.support.publish import NOW, recommender, world
from tests.support.publisher import next_activity, serving_publisher, unseen_titles

PLAY = ACTIONS["play"].code
USER = sorted(world().newest())[0]


def activity(user: str, titles: list[str], new: list[int], first_offset: int) -> Activity:
    """An activity whose new events have consecutive offsets."""
    events = [NewEvent(index, 0, first_offset + n, index) for n, index in enumerate(new)]
    times, actions = list(range(len(titles))), [PLAY] * len(titles)
    return Activity(user=user, count=len(titles), titles=titles, times=times, actions=actions, new=events)


def taken(events: LiveEvents) -> list[tuple[str, list[str]]]:
    return [(update.user, [update.titles[index] for index in update.new]) for update in events.take()]


def test_each_event_after_the_position_is_taken_once() -> None:
    events = LiveEvents()
    for offset, title in enumerate("abc"):
        events.add(activity("u", [title], [0], offset), 10 + offset)
    events.serve(11)
    assert taken(events) == [("u", ["b"]), ("u", ["c"])]
    assert taken(events) == []
    events.add(activity("v", ["c", "d"], [0, 1], 2), 20)  # its first event was added before
    assert taken(events) == [("v", ["d"])]
    events.serve(12)
    assert taken(events) == [("u", ["c"]), ("v", ["d"])]


def test_events_far_behind_the_position_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_events, "MAX_ACTIVITIES", 5)
    events = LiveEvents()
    events.serve(100)
    for offset in range(100, 108):
        events.add(activity("u", ["a"], [0], offset), offset)
    assert len(events.take()) == 2  # five are kept, and three of them are too far away


def test_history_of_an_event_is_shortened() -> None:
    events = LiveEvents()
    events.serve(0)
    titles = [f"t{n}" for n in range(MAX_HISTORY + 50)]
    events.add(activity("u", titles, [len(titles) - 1], 0), 0)
    (update,) = events.take()
    assert (update.titles, update.new) == (titles[-MAX_HISTORY - 1 :], [MAX_HISTORY])
    assert len(update.titles) == len(update.times) == len(update.actions)


def test_erased_user_is_forgotten() -> None:
    events = LiveEvents()
    events.serve(0)
    for n, user in enumerate(("u", "v")):
        events.add(activity(user, ["a"], [0], n), n)
    events.erase("u", 5)
    assert taken(events) == [("v", ["a"])]
    events.serve(0)
    events.add(activity("u", ["b"], [0], 7), 6)
    assert taken(events) == [("v", ["a"]), ("u", ["b"])]


def test_many_events_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_events, "MAX_TAKEN", 2)
    events = LiveEvents()
    events.serve(0)
    for n in range(5):
        events.add(activity("u", ["a"], [0], n), n)
    assert [len(events.take()) for _ in range(4)] == [2, 2, 1, 0]
    assert events.uncounted == 0


def counts(publisher: Publisher, title: str) -> float:
    assert publisher.recommender is not None
    catalog = publisher.recommender.stream_state.catalog
    return float(catalog.count_V[catalog.rows[title]])


def test_event_counts_in_the_served_version_before_the_next_list() -> None:
    publisher = serving_publisher()
    publisher.work(NOW)
    title = unseen_titles(USER)[0]
    before = counts(publisher, title)
    publisher.on_activity(next_activity(USER, title), 1_000)
    assert counts(publisher, title) == before
    publisher.work(NOW)
    assert counts(publisher, title) > before


def test_next_version_counts_only_the_events_after_its_position() -> None:
    publisher = serving_publisher()
    titles = unseen_titles(USER)[:2]
    before = [counts(publisher, title) for title in titles]
    for n, title in enumerate(titles):
        publisher.on_activity(next_activity(USER, title, offset=1_000 + n), 1_000 + n)
    publisher.serve(1, recommender(), [], position=1_001)
    publisher.work(NOW)
    added = np.array([counts(publisher, title) for title in titles]) - before
    assert (added > 0).tolist() == [False, True]


def test_version_of_a_rollback_counts_no_later_event() -> None:
    publisher = serving_publisher()
    title = unseen_titles(USER)[0]
    publisher.serve(1, recommender(), [], position=900, is_rollback=True)
    before = counts(publisher, title)
    publisher.on_activity(next_activity(USER, title), 1_000)
    publisher.work(NOW)
    assert counts(publisher, title) == before
