"""The state of one user: erasure times, histories and their snapshots."""

import pickle
from typing import Any

import pytest
from prometheus_client import REGISTRY

from streaming.errors import StreamError
from streaming.records import UserErasure
from streaming.state.user_history import UserEvent
from streaming.state.user_state import NEVER, NEW_USER_EVENTS, STATE_FORMAT, Lifetimes, UserState

START = 1_700_000_000_000  # ms


def event(number: int, **fields: Any) -> UserEvent:
    return UserEvent("u", f"t{number}", START, 3, None, 0, number, START + number)._replace(**fields)


def request(number: int) -> UserErasure:
    return UserErasure(user="u", partition=0, offset=0, appended=START + number)


def restored(state: UserState) -> UserState:
    return UserState(state.size, pickle.loads(pickle.dumps(state.snapshot())))


def test_snapshot_restores_history_and_erasure_time() -> None:
    state = UserState()
    state.apply([request(1), event(2), event(3)])
    state = restored(state)
    assert state.erased_at == START + 1
    assert state.history is not None
    assert state.history.titles == ["t2", "t3"]
    update = restored(state).apply([request(2)])
    assert [record.titles for record in update.records if not isinstance(record, UserErasure)] == [["t3"]]


def test_erased_user_has_no_history_object() -> None:
    state = UserState()
    assert state.erased_at == NEVER
    state.apply([event(1), request(1)])
    assert state.history is None
    assert state.snapshot() == (STATE_FORMAT, "u", START + 1, None)


def test_event_read_after_the_request_that_covers_it_is_dropped_and_counted() -> None:
    state, name = UserState(), "premiere_erased_events_total"
    state.apply([request(5)])
    before = REGISTRY.get_sample_value(name) or 0.0
    update = restored(state).apply([event(4), event(5), event(6)])
    assert [row["title"] for row in update.rows] == ["t6"]
    assert REGISTRY.get_sample_value(name) == before + 2


def test_second_request_repeats_no_row_of_a_later_event() -> None:
    state = UserState()
    state.apply([request(1)])
    assert [row["title"] for row in state.apply([event(5)]).rows] == ["t5"]
    update = state.apply([request(3)])
    assert (update.rows, [row["title"] for row in update.online[1:]]) == ([], ["t5"])


def test_state_of_another_format_is_refused() -> None:
    with pytest.raises(StreamError, match="format 99"):
        UserState(saved=(99, "u", 0, None))


def test_users_with_few_events_are_kept_for_a_shorter_time() -> None:
    lifetimes, state = Lifetimes(user_ms=1000, new_user_ms=100, event_ms=10), UserState()
    state.apply([event(number) for number in range(NEW_USER_EVENTS - 1)])
    assert state.ends_at(lifetimes) == START + NEW_USER_EVENTS - 2 + 100
    state.apply([event(0)])  # an event with an earlier append time
    assert state.ends_at(lifetimes) == START + NEW_USER_EVENTS - 2 + 1000


def test_erasure_time_is_kept_while_kafka_may_deliver_a_covered_event() -> None:
    lifetimes, state = Lifetimes(user_ms=1, new_user_ms=1, event_ms=500), UserState()
    state.apply([request(7)])
    assert state.ends_at(lifetimes) == state.kept_until(lifetimes) == START + 507
