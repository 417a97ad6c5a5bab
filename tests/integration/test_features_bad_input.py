"""Nothing a producer sends stops the flow `features`: it leaves a dead letter, or is a valid event."""

import json
import random
from datetime import timedelta

import pytest

from streaming.flows.features import LARGEST, sort
from streaming.kafka.dead_letters import CEILING_MS, FUTURE
from streaming.kafka.source import Message
from streaming.records import FLOOR_MS
from tests.support.features import NOW, event, forget, play, polls

GOOD = {"user": "u", "title": "t", "ts": NOW}


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        (b"u", b"\x00\x01", "not JSON"),
        (b"u", json.dumps({**GOOD, "ts": "now"}).encode(), "wrong type"),
        (b"u", json.dumps({"user": "u", "ts": NOW}).encode(), "missing field"),
        (b"u", json.dumps({**GOOD, "action": "yawn"}).encode(), "unknown action"),
        (b"u", json.dumps({**GOOD, "ts": FLOOR_MS - 1}).encode(), "too old"),
        (b"u", json.dumps({**GOOD, "ts": -(10**30)}).encode(), "too old"),
        (b"u", json.dumps({**GOOD, "ts": NOW + 3_600_001}).encode(), "in the future"),
        (b"u", json.dumps({**GOOD, "ts": 10**30}).encode(), "in the future"),
        (b"u", json.dumps({**GOOD, "rating": 5.01}).encode(), "out of range"),
        (b"u", json.dumps({**GOOD, "rating": -1}).encode(), "out of range"),
        (b"u", json.dumps({**GOOD, "rating": 1e300}).encode(), "out of range"),
        (b"u", b'{"user": "u", "title": "t", "ts": 1, "rating": 1e999}', "out of range"),
        (b"u", b'{"user": "u", "title": "t", "ts": 1, "rating": NaN}', "not JSON"),
        (b"u", json.dumps({**GOOD, "rating": True}).encode(), "wrong type"),
        (b"v", json.dumps({"user": "u", "forget": True}).encode(), "key"),
        (b"u", json.dumps({"user": "u", "forget": 1}).encode(), "missing field"),
        (b"u", json.dumps({"user": "u", "forget": False}).encode(), "missing field"),
        (b"v", json.dumps(GOOD).encode(), "key"),
        (None, json.dumps(GOOD).encode(), "key"),
        (b"u", json.dumps({**GOOD, "x": "y" * LARGEST}).encode(), "too large"),
        (b"u", None, "tombstone"),
    ],
)
def test_a_bad_message_becomes_a_dead_letter_and_the_flow_goes_on(
    key: bytes | None, value: bytes | None, kind: str
) -> None:
    run = play([[Message("user-events", 0, 0, NOW, key, value), event("u", "t", NOW, 1)]])
    (letter,) = run.dead.all()
    headers = dict(letter.headers)
    assert headers["reason"].decode().partition(":")[0] == kind
    assert (headers["topic"], headers["partition"], headers["offset"]) == (b"user-events", b"0", b"0")
    assert letter.value == (value or b"")[:65_536]
    assert list(run.rows()) == [(0, 1)]


@pytest.mark.parametrize("rating", [0, 0.0, 2.999, 5, None])
def test_ratings_from_0_to_5_are_good(rating: float | None) -> None:
    assert play([[event("u", "t", NOW, 0, rating=rating)]]).dead.all() == []


def test_times_at_the_bounds_are_good() -> None:
    ahead = int(FUTURE.total_seconds() * 1000)
    run = play([[event("u", "old", FLOOR_MS, 0), event("u", "new", NOW + ahead, 0, partition=1)]])
    assert len(run.rows()) == 2
    assert run.dead.all() == []


def test_the_future_is_judged_by_the_record_time_and_by_the_setting() -> None:
    message = event("u", "t", NOW + 5_000, 0)
    assert sort([message], timedelta(seconds=5)).rejected == []
    assert len(sort([message], timedelta(seconds=4)).rejected) == 1


def test_a_record_time_that_no_calendar_holds_stops_nobody() -> None:
    far = Message("user-events", 0, 0, 2**62, b"u", json.dumps({**GOOD, "ts": 2**62}).encode())
    late = far._replace(appended=CEILING_MS + 1, value=json.dumps(GOOD).encode())
    asked = forget("u", 0)
    run = play([[far, late, asked._replace(appended=2**62), asked._replace(appended=-(10**16))]])
    assert [dict(letter.headers)["reason"].partition(b":")[0] for letter in run.dead.all()] == [b"record time"] * 4


def test_strange_but_valid_ids_pass() -> None:
    ids = ["\x00", "😀", "a b\n", "x" * 256, '"']
    run = play([[event(user, user, NOW, n) for n, user in enumerate(ids)]])
    assert sorted(activity.user for activity in run.activities()) == sorted(ids)
    assert run.dead.all() == []


def test_whatever_bytes_come_each_message_is_a_row_or_a_dead_letter() -> None:
    draw, good = random.Random(7), json.dumps({**GOOD, "rating": 4.5, "event_id": None, "x": [1, {"y": "é"}]}).encode()
    messages = []
    for offset in range(3_000):
        value = bytearray(good)
        for _ in range(draw.randrange(4)):
            start = draw.randrange(len(value))
            value[start : start + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
        messages.append(Message("user-events", 0, offset, NOW, b"u", bytes(value)))
    run = play(polls(messages, 100))
    assert len(run.rows()) > 500
    assert len(run.dead.all()) > 500
    assert len(run.rows()) + len(run.dead.all()) == 3_000
