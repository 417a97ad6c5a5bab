"""No input stops the flow `features`: each message is a valid event or becomes a dead letter."""

import json
import random
from datetime import timedelta

import pytest

from streaming.flows.event_checks import EventChecks
from streaming.flows.features import MAX_EVENT_BYTES, parse_events
from streaming.kafka.dead_letters import MAX_FUTURE, MAX_TIME_MS
from streaming.kafka.source import Message
from streaming.records import MIN_TIME_MS
from tests.support.features import NOW, erasure_request, event, polls, run_flow

VALID = {"user": "u", "title": "t", "ts": NOW}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"u", b"\x00\x01", "not JSON"),
        (b"u", json.dumps({**VALID, "ts": "now"}).encode(), "wrong type"),
        (b"u", json.dumps({"user": "u", "ts": NOW}).encode(), "missing field"),
        (b"u", json.dumps({**VALID, "action": "yawn"}).encode(), "unknown action"),
        (b"u", json.dumps({**VALID, "ts": MIN_TIME_MS - 1}).encode(), "too old"),
        (b"u", json.dumps({**VALID, "ts": -(10**30)}).encode(), "too old"),
        (b"u", json.dumps({**VALID, "ts": NOW + 3_600_001}).encode(), "in the future"),
        (b"u", json.dumps({**VALID, "ts": 10**30}).encode(), "in the future"),
        (b"u", json.dumps({**VALID, "rating": 5.01}).encode(), "out of range"),
        (b"u", json.dumps({**VALID, "rating": -1}).encode(), "out of range"),
        (b"u", json.dumps({**VALID, "rating": 1e300}).encode(), "out of range"),
        (b"u", b'{"user": "u", "title": "t", "ts": 1, "rating": 1e999}', "out of range"),
        (b"u", b'{"user": "u", "title": "t", "ts": 1, "rating": NaN}', "not JSON"),
        (b"u", json.dumps({**VALID, "rating": True}).encode(), "wrong type"),
        (b"u", json.dumps({"user": "u", "erase": True}).encode(), "moved"),
        (b"u", json.dumps({**VALID, "erase": True}).encode(), "moved"),
        (b"u", json.dumps({"user": "u", "erase": 1}).encode(), "missing field"),
        (b"u", json.dumps({**VALID, "title": "é" * 129}).encode(), "out of range"),
        ("é".encode() * 129, json.dumps({**VALID, "user": "é" * 129}).encode(), "out of range"),
        (b"u", json.dumps({"user": "u", "erase": False}).encode(), "missing field"),
        (b"v", json.dumps(VALID).encode(), "key"),
        (None, json.dumps(VALID).encode(), "key"),
        (b"u", json.dumps({**VALID, "x": "y" * MAX_EVENT_BYTES}).encode(), "too large"),
        (b"u", None, "tombstone"),
    ],
)
def test_invalid_message_becomes_a_dead_letter(key: bytes | None, value: bytes | None, reason: str) -> None:
    run = run_flow([[Message("user-events", 0, 0, NOW, key, value), event("u", "t", NOW, 1)]])
    (letter,) = run.letters.all()
    headers = dict(letter.headers)
    assert headers["reason"].decode().partition(":")[0] == reason
    assert (headers["topic"], headers["partition"], headers["offset"]) == (b"user-events", b"0", b"0")
    assert letter.value == (value or b"")[:65_536]
    assert list(run.rows()) == [(0, 1)]


@pytest.mark.parametrize("rating", [0, 0.0, 2.999, 5, None])
def test_ratings_from_0_to_5_are_valid(rating: float | None) -> None:
    assert run_flow([[event("u", "t", NOW, 0, rating=rating)]]).letters.all() == []


def test_times_at_the_bounds_are_valid() -> None:
    max_ahead_ms = int(MAX_FUTURE.total_seconds() * 1000)
    run = run_flow([[event("u", "old", MIN_TIME_MS, 0), event("u", "new", NOW + max_ahead_ms, 0, partition=1)]])
    assert len(run.rows()) == 2
    assert run.letters.all() == []


def test_max_future_is_relative_to_the_record_time() -> None:
    message = event("u", "t", NOW + 5_000, 0)
    assert parse_events([message], EventChecks(timedelta(seconds=5))).letters == []
    assert len(parse_events([message], EventChecks(timedelta(seconds=4))).letters) == 1


def test_invalid_record_time_becomes_a_dead_letter() -> None:
    far = Message("user-events", 0, 0, 2**62, b"u", json.dumps({**VALID, "ts": 2**62}).encode())
    late = far._replace(appended=MAX_TIME_MS + 1, value=json.dumps(VALID).encode())
    request = erasure_request("u", 0)
    requests = [request._replace(appended=2**62), request._replace(appended=-(10**16))]
    run = run_flow([[far, late]], requests=[requests])
    assert [dict(letter.headers)["reason"].partition(b":")[0] for letter in run.letters.all()] == [b"record time"] * 4


def test_unusual_ids_are_valid() -> None:
    ids = ["\x00", "😀", "a b\n", "x" * 256, "é" * 128, '"']
    run = run_flow([[event(user, user, NOW, n) for n, user in enumerate(ids)]])
    assert sorted(activity.user for activity in run.activities()) == sorted(ids)
    assert run.letters.all() == []


def test_random_bytes_become_rows_or_dead_letters() -> None:
    source, valid = (
        random.Random(7),
        json.dumps({**VALID, "rating": 4.5, "event_id": None, "x": [1, {"y": "é"}]}).encode(),
    )
    messages = []
    for offset in range(3_000):
        value = bytearray(valid)
        for _ in range(source.randrange(4)):
            start = source.randrange(len(value))
            value[start : start + source.randrange(3)] = source.randbytes(source.randrange(3))
        messages.append(Message("user-events", 0, offset, NOW, b"u", bytes(value)))
    run = run_flow(polls(messages, 100))
    assert len(run.rows()) > 500
    assert len(run.letters.all()) > 500
    assert len(run.rows()) + len(run.letters.all()) == 3_000
