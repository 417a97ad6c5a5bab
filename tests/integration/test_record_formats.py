"""Records of earlier releases can be decoded. The bytes below are the formats of 0.1.0 and must not change.

A field with a default may be added, and unknown fields are ignored. Any other change needs a new topic or a new tag.
"""

from typing import Final

import msgspec
import pytest

from streaming.records import (
    Activity,
    Event,
    Launch,
    LogRecord,
    NewEvent,
    Tick,
    Title,
    UserErasure,
    Version,
    decode_event,
    decode_launch,
    decode_log,
    decode_title,
    decode_version,
    to_json,
    to_msgpack,
)

ACTIVITY: Final = bytes.fromhex(
    "87a474797065a86163746976697479a475736572a27531a5636f756e7403a67469746c657392a27431a27432a574696d6573"
    "92fbcf0000018bcfe56800a7616374696f6e73920308a36e6577919401024dcf0000018bcfe5687b"
)
TITLE: Final = bytes.fromhex(
    "8ca474797065a57469746c65a57469746c65a27431a46e616d65a5416c69656ea667656e72657391a6486f72726f72a479656172cd07bb"
    "a872656c6561736564c0a86c61756e6368656401a57374616d7002a977697468647261776ec2a873656d616e746963c4040000803f"
    "a8617070656e64656403a66f666673657404"
)
TICK: Final = bytes.fromhex("82a474797065a47469636ba2747309")
ERASURE: Final = bytes.fromhex(
    "85a474797065a765726173757265a475736572a27531a9706172746974696f6e02a66f66667365744ea8617070656e646564"
    "cf0000018bcfe569c8"
)
VERSION: Final = b'{"path":"/c/1","step":1,"position":2,"learned":3,"mrr":null,"created":4}'

activity: Final = Activity(
    user="u1", count=3, titles=["t1", "t2"], times=[-5, 1_700_000_000_000], actions=[3, 8],
    new=[NewEvent(1, 2, 77, 1_700_000_000_123)],
)  # fmt: skip
title: Final = Title(
    title="t1", name="Alien", genres=["Horror"], year=1979, released=None, launched=1, stamp=2, withdrawn=False,
    semantic=b"\0\0\x80?", appended=3, offset=4,
)  # fmt: skip
erasure: Final = UserErasure(user="u1", partition=2, offset=78, appended=1_700_000_000_456)


@pytest.mark.parametrize(
    ("stored", "record"), [(ACTIVITY, activity), (TITLE, title), (TICK, Tick(ts=9)), (ERASURE, erasure)]
)
def test_record_of_an_earlier_or_later_release_is_decoded(stored: bytes, record: LogRecord) -> None:
    assert decode_log(stored) == record
    later = {**msgspec.msgpack.decode(to_msgpack(record)), "added_later": [1, {"a": None}]}
    assert decode_log(to_msgpack(later)) == record


def test_title_record_is_the_same_in_both_topics() -> None:
    assert decode_title(TITLE) == title


def test_version_without_a_cause_was_learned() -> None:
    version = decode_version(VERSION)
    assert version == Version(path="/c/1", step=1, position=2, learned=3, mrr=None, created=4)
    assert (version.cause, version.original_version) == ("learned", None)
    assert decode_version(to_json(version)) == version


def test_first_records_of_producers_are_decoded() -> None:
    assert decode_event(b'{"user":"u","title":"t","ts":5,"x":1}') == Event(user="u", title="t", ts=5)
    launch = b'{"title":"t","name":"n","genres":["g"],"overview":"o","year":1999,"x":{}}'
    assert decode_launch(launch) == Launch(title="t", name="n", genres=["g"], overview="o", year=1999)
