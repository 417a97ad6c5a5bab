"""Flow `features` at erasure requests: what is kept depends on append times, not on which topic is read first."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main

from streaming.records import Activity, UserErasure
from streaming.stores.erasure import drop_erased
from streaming.topics import USER_EVENTS
from tests.support.features import NOW, FeaturesRun, erasure_request, event, polls, run_flow, run_in_order

EVENTS = [
    event("u", "a", NOW - 9, 0, event_id="1"),
    event("v", "a", NOW - 8, 1),
    event("u", "same time", NOW - 7, 2),  # appended in the same millisecond as the request
    event("u", "b", NOW - 50, 3, event_id="2"),
    event("v", "b", NOW - 3, 4),
]
REQUEST = erasure_request("u", 2)


def of_user(run: FeaturesRun, user: str = "u") -> list[Activity | UserErasure]:
    return [record for record in run.log() if isinstance(record, Activity | UserErasure) and record.user == user]


def last_history(run: FeaturesRun, user: str) -> tuple[int, list[str]]:
    last = of_user(run, user)[-1]
    assert isinstance(last, Activity)
    return last.count, last.titles


@pytest.mark.parametrize("size", [1, 2, 9])
@pytest.mark.parametrize("place", range(len(EVENTS) + 1))  # events that are read before the request
def test_events_after_the_request_are_kept_whichever_topic_is_read_first(place: int, size: int) -> None:
    run = run_in_order([*EVENTS[:place], REQUEST, *EVENTS[place:]], size)
    assert last_history(run, "u") == (1, ["b"])
    assert last_history(run, "v") == (2, ["a", "b"])
    log = of_user(run)
    request = next(index for index, record in enumerate(log) if isinstance(record, UserErasure))
    assert log[request] == UserErasure(user="u", partition=0, offset=2, appended=NOW + 2)
    for after in log[request + 1 :]:
        assert isinstance(after, Activity)
        assert (after.titles, [new.offset for new in after.new]) == (["b"], [3])
    online = [row for row in run.online.all() if row["user_id"] == "u"]
    assert ["event_timestamp" in row for row in online][-2:] == [False, True]  # deleted, then the new history's row
    assert online[-1]["recent_titles"] == ["b"]
    (erasure,) = run.erasures.all()
    assert (erasure["user_id"], erasure["appended"].timestamp() * 1000) == ("u", NOW + 2)
    offline, requests = pa.Table.from_pylist(run.offline.all()), pa.Table.from_pylist(run.erasures.all())
    kept = [row for row in drop_erased(offline, requests).to_pylist() if row["user_id"] == "u"]
    assert [(row["offset"], row["event_count"], row["recent_titles"]) for row in kept] == [(3, 1, ["b"])]
    assert run.rows()[0, 4]["event_count"] == 2  # the other user's history continues


def test_repeated_and_earlier_requests_change_nothing() -> None:
    run = run_in_order([*EVENTS, REQUEST, REQUEST, erasure_request("u", 1)])
    assert sum(isinstance(record, UserErasure) for record in of_user(run)) == len(run.erasures.all()) == 1


def test_later_request_erases_the_new_history() -> None:
    run = run_in_order([*EVENTS, REQUEST, erasure_request("u", 3)])
    assert isinstance(of_user(run)[-1], UserErasure)
    assert "event_timestamp" not in [row for row in run.online.all() if row["user_id"] == "u"][-1]


def test_unknown_user_leaves_only_the_request() -> None:
    run = run_in_order([erasure_request("nobody", 0, reason="request by mail")])
    assert of_user(run, "nobody") == [UserErasure(user="nobody", partition=0, offset=0, appended=NOW)]
    assert run.letters.all() == run.offline.all() == []


@pytest.mark.parametrize("requests_first", [True, False])
def test_reprocessing_both_topics_restores_no_erased_event(requests_first: bool) -> None:
    first = run_in_order([*EVENTS, REQUEST])
    again = run_in_order([REQUEST, *EVENTS] if requests_first else [*EVENTS, REQUEST])  # the recovery store was lost
    assert last_history(again, "u") == last_history(first, "u") == (1, ["b"])


def test_crash_between_request_and_later_event_loses_neither(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    run = FeaturesRun()
    events = TestingSource[Any]([EVENTS[:1], [], EVENTS[1:3], TestingSource.ABORT(), EVENTS[3:]])
    requests = TestingSource[Any]([[], [REQUEST], [], TestingSource.ABORT(), []])
    for _ in range(2):
        run_main(run.flow(events, requests), recovery_config=RecoveryConfig(tmp_path))
    assert last_history(run, "u") == (1, ["b"])
    assert (0, 2) not in run.rows()


def test_erase_flag_in_an_event_names_the_topic_of_requests() -> None:
    old = EVENTS[0]._replace(value=json.dumps({"user": "u", "erase": True}).encode())
    run = run_flow([[old]])
    (letter,) = run.letters.all()
    reason = dict(letter.headers)["reason"].decode()
    assert reason.startswith("moved: ")
    assert "erasure-requests" in reason
    assert run.erasures.all() == []


@pytest.mark.parametrize("field", ["erase", "meta"])
def test_event_with_an_erase_field_of_another_meaning_is_an_event(field: str) -> None:
    value = {"erase": "nothing"} if field == "erase" else {"meta": {"erase": True}, "erase": False}
    run = run_flow([[event("u", "a", NOW, 0, **value)]])
    assert list(run.rows()) == [(0, 0)]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"v", b'{"user": "u"}', "key"),
        (None, b'{"user": "u"}', "key"),
        (b"u", b'{"user": 1}', "wrong type"),
        (b"u", b"{}", "missing field"),
        (b"u", b"{", "not JSON"),
        (b"u", None, "tombstone"),
        ("é".encode() * 129, json.dumps({"user": "é" * 129}).encode(), "out of range"),
    ],
)
def test_invalid_request_becomes_a_dead_letter(key: bytes | None, value: bytes | None, reason: str) -> None:
    run = run_in_order([REQUEST._replace(key=key, value=value), *EVENTS])
    (letter,) = run.letters.all()
    headers = dict(letter.headers)
    assert headers["reason"].decode().partition(":")[0] == reason
    assert (headers["topic"], headers["appended"]) == (b"erasure-requests", str(NOW + 2).encode())
    assert run.erasures.all() == []


def test_polls_of_requests_alone_are_no_silence() -> None:
    run = run_flow([], requests=polls([erasure_request("u", n) for n in range(3)], 1))
    assert {type(record) for record in run.log()} == {UserErasure}
    assert USER_EVENTS not in {record.topic for record in run.activity.all()}
