"""The query time of a list: the present of the stream, or the own clock of a user who has just acted."""

import pytest

from streaming.records import Activity, NewEvent
from streaming.state.query_time import ACTIVE_MS, QueryTime
from streaming.state.user_cache import CachedUser, UserCache

NOW = 1_800_000_000_000  # ms, wall clock
SECOND, DAY = 1000, 86_400_000  # ms
YEARS = 10 * 365 * DAY


def activity(user: str, ts: int, appended: int) -> Activity:
    event = NewEvent(0, 0, appended, appended)
    return Activity(user=user, count=1, titles=["t"], times=[ts], actions=[3], new=[event])


def after(*activities: Activity) -> tuple[QueryTime, UserCache]:
    query_time, users = QueryTime(), UserCache()
    for one in activities:
        query_time.add(one)
        users.update(one)
    return query_time, users


def user(users: UserCache, name: str) -> CachedUser:
    cached = users.get(name)
    assert cached is not None
    return cached


def test_without_an_event_the_query_time_is_the_wall_clock() -> None:
    assert QueryTime().of(CachedUser(None), NOW) == NOW


def test_present_is_the_wall_clock_minus_the_median_age() -> None:
    ages = [YEARS - DAY, YEARS, YEARS + DAY]
    query_time, _ = after(*(activity(f"u{n}", NOW - age, NOW) for n, age in enumerate(ages)))
    assert query_time.of(CachedUser(None), NOW + SECOND) == NOW + SECOND - YEARS


def test_user_in_a_session_is_not_put_weeks_ahead_when_old_events_are_produced_again() -> None:
    others = [activity(f"u{n}", NOW - YEARS, NOW) for n in range(9)]
    query_time, users = after(*others, activity("late in the data", NOW - YEARS - 30 * DAY, NOW))
    in_session = user(users, "late in the data")
    assert query_time.of(in_session, NOW + SECOND) == in_session.times[-1] + SECOND
    assert query_time.of(in_session, NOW + ACTIVE_MS + SECOND) == NOW + ACTIVE_MS + SECOND - YEARS


@pytest.mark.parametrize("age", [0, 100, 1000, 1900])
def test_live_user_is_queried_at_the_present(age: int) -> None:
    live = [activity(f"u{n}", NOW - SECOND, NOW) for n in range(9)]
    query_time, users = after(*live, activity("u", NOW - age, NOW))
    assert abs(query_time.of(user(users, "u"), NOW + SECOND) - (NOW + SECOND)) < 2 * SECOND


def test_user_whose_client_was_offline_acts_in_the_present() -> None:
    live = [activity(f"u{n}", NOW - SECOND, NOW) for n in range(9)]
    query_time, users = after(*live, activity("offline", NOW - DAY, NOW))
    assert query_time.of(user(users, "offline"), NOW + SECOND) == NOW
