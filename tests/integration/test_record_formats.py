"""Records as earlier releases wrote them are still read: the bytes below were written by 0.1.0, and do not change.

A field may be added with a default and an unknown one is passed over; any other change is a new topic or a new tag.
"""

from typing import Final

import msgspec
import pytest

from streaming.records import (
    Activity,
    Event,
    Forgotten,
    Launch,
    LogRecord,
    NewEvent,
    Tick,
    Title,
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
FORGET: Final = bytes.fromhex(
    "85a474797065a6666f72676574a475736572a27531a9706172746974696f6e02a66f66667365744ea8617070656e646564cf0000018bcfe569c8"
)
VERSION: Final = b'{"path":"/c/1","step":1,"position":2,"learned":3,"mrr":null,"created":4}'

acted: Final = Activity(
    user="u1", count=3, titles=["t1", "t2"], times=[-5, 1_700_000_000_000], actions=[3, 8],
    new=[NewEvent(1, 2, 77, 1_700_000_000_123)],
)  # fmt: skip
title: Final = Title(
    title="t1", name="Alien", genres=["Horror"], year=1979, released=None, launched=1, stamp=2, withdrawn=False,
    semantic=b"\0\0\x80?", appended=3, offset=4,
)  # fmt: skip
forgotten: Final = Forgotten(user="u1", partition=2, offset=78, appended=1_700_000_000_456)


@pytest.mark.parametrize(
    ("stored", "record"), [(ACTIVITY, acted), (TITLE, title), (TICK, Tick(ts=9)), (FORGET, forgotten)]
)
def test_a_record_of_an_earlier_release_is_read_and_one_of_a_later_one_too(stored: bytes, record: LogRecord) -> None:
    assert decode_log(stored) == record
    later = {**msgspec.msgpack.decode(to_msgpack(record)), "added later": [1, {"a": None}]}
    assert decode_log(to_msgpack(later)) == record


def test_a_title_is_read_alike_from_its_own_topic() -> None:
    assert decode_title(TITLE) == title


def test_a_version_announced_before_there_were_rollbacks_is_one_that_was_learned() -> None:
    version = decode_version(VERSION)
    assert version == Version(path="/c/1", step=1, position=2, learned=3, mrr=None, created=4)
    assert (version.cause, version.of) == ("learned", None)
    assert decode_version(to_json(version)) == version


def test_what_producers_sent_at_first_is_read() -> None:
    assert decode_event(b'{"user":"u","title":"t","ts":5,"x":1}') == Event(user="u", title="t", ts=5)
    launch = b'{"title":"t","name":"n","genres":["g"],"overview":"o","year":1999,"x":{}}'
    assert decode_launch(launch) == Launch(title="t", name="n", genres=["g"], overview="o", year=1999)
