"""Decoding is strict about types, ignores unknown fields, and reads a rating as an action."""

from typing import Any, Final

import msgspec
import numpy as np
import pytest

from features.limits import MAX_EMBEDDING_WIDTH
from model.actions import ACTIONS
from streaming.records import (
    DECODE_ERRORS,
    Activity,
    ErasureRequest,
    Event,
    Launch,
    LogRecord,
    NewEvent,
    Tick,
    Title,
    TitleWithdrawal,
    UserErasure,
    action_code,
    decode_erasure_request,
    decode_event,
    decode_launch,
    decode_log,
    decode_title,
    decode_version,
    decode_withdrawal,
    to_json,
    to_msgpack,
)


def test_action_code_is_the_action_unless_there_is_a_rating() -> None:
    event = Event(user="u", title="t", ts=0, action="impression")
    assert action_code(event) == ACTIONS["impression"].code
    assert action_code(msgspec.structs.replace(event, rating=5.0)) == ACTIONS["rated high"].code


def test_unknown_action_raises() -> None:
    with pytest.raises(KeyError):
        action_code(Event(user="u", title="t", ts=0, action="yawn"))


@pytest.mark.parametrize("record", [Tick(ts=5), UserErasure(user="u", partition=1, offset=2, appended=3)])
def test_log_record_is_decoded_by_its_tag(record: Tick | UserErasure) -> None:
    assert decode_log(to_msgpack(record)) == record


def test_unknown_fields_are_ignored() -> None:
    assert decode_event(b'{"user":"u","title":"t","ts":1,"mood":"calm"}') == Event(user="u", title="t", ts=1)
    assert decode_erasure_request(b'{"user":"u","reason":"mail"}') == ErasureRequest(user="u")
    assert decode_withdrawal(b'{"title":"t","withdrawn":true}') == TitleWithdrawal(title="t")


@pytest.mark.parametrize("launch", [b'{"title":7}', b'{"title":""}', b'{"title":"t","genres":"Drama"}', b"{}"])
def test_launch_with_a_wrong_type_is_invalid(launch: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_launch(launch)


def test_json_round_trip_keeps_the_launch() -> None:
    launch = Launch(title="t", name="Amélie 🎬", genres=["Comedy"], text={"tags": "slow burn"}, year=2001)
    assert decode_launch(to_json(launch)) == launch


VALID_ACTIVITY: Final = Activity(
    user="u", count=3, titles=["a", "b"], times=[5, 9], actions=[3, 10], new=[NewEvent(1, 0, 7, 9)]
)
VALID_TITLE: Final = Title(
    title="t", name="", genres=[], year=None, released=None, launched=0, stamp=0, withdrawn=False,
    semantic=np.ones(4, "<f4").tobytes(), appended=0, offset=0,
)  # fmt: skip
VALID_ERASURE: Final = UserErasure(user="u", partition=1, offset=2, appended=3)
INVALID_FIELDS: Final[list[tuple[Activity | Title | UserErasure, dict[str, Any]]]] = [
    (VALID_ACTIVITY, {"new": [NewEvent(2, 0, 7, 9)]}),  # beyond the history
    (VALID_ACTIVITY, {"new": [NewEvent(-1, 0, 7, 9)]}),
    (VALID_ACTIVITY, {"new": [NewEvent(1, 0, 7, 9), NewEvent(1, 0, 8, 9)]}),
    (VALID_ACTIVITY, {"new": [NewEvent(1, -1, 7, 9)]}),
    (VALID_ACTIVITY, {"new": [NewEvent(1, 4096, 7, 9)]}),
    (VALID_ACTIVITY, {"new": [NewEvent(1, 0, -1, 9)]}),
    (VALID_ACTIVITY, {"new": [NewEvent(1, 0, 2**63, 9)]}),
    (VALID_ACTIVITY, {"new": [NewEvent(1, 0, 7, 2**63)]}),
    (VALID_ACTIVITY, {"actions": [3, 99]}),
    (VALID_ACTIVITY, {"actions": [3, 0]}),
    (VALID_ACTIVITY, {"actions": [3, -1]}),
    (VALID_ACTIVITY, {"actions": [3]}),
    (VALID_ACTIVITY, {"titles": ["a"]}),
    (VALID_ACTIVITY, {"titles": ["a", ""]}),
    (VALID_ACTIVITY, {"times": [5, 9, 9]}),
    (VALID_ACTIVITY, {"times": [9, 5]}),
    (VALID_ACTIVITY, {"times": [5, 2**63]}),
    (VALID_ACTIVITY, {"count": 1}),
    (VALID_ACTIVITY, {"count": 2**63}),
    (VALID_ACTIVITY, {"user": ""}),
    (VALID_TITLE, {"semantic": np.ones(MAX_EMBEDDING_WIDTH + 1, "<f4").tobytes()}),
    (VALID_TITLE, {"semantic": b"abc"}),
    (VALID_TITLE, {"semantic": np.array([1, 1, 1, np.nan], "<f4").tobytes()}),
    (VALID_TITLE, {"semantic": np.array([1, 1, 1, -np.inf], "<f4").tobytes()}),
    (VALID_TITLE, {"semantic": np.array([1, 1, 1, 1e30], "<f4").tobytes()}),
    (VALID_TITLE, {"released": 2**63}),
    (VALID_TITLE, {"year": 10**30 % 2**63}),
    (VALID_TITLE, {"title": ""}),
    (VALID_TITLE, {"appended": 2**63}),
    (VALID_ERASURE, {"partition": -1}),
    (VALID_ERASURE, {"offset": 2**63}),
    (VALID_ERASURE, {"user": "u" * 257}),
]


@pytest.mark.parametrize("record", [VALID_ACTIVITY, VALID_TITLE, msgspec.structs.replace(VALID_TITLE, semantic=b"")])
def test_valid_record_of_an_internal_topic_is_decoded(record: LogRecord) -> None:
    assert decode_log(to_msgpack(record)) == record


@pytest.mark.parametrize(("record", "fields"), INVALID_FIELDS)
def test_record_of_an_internal_topic_that_contradicts_itself_is_invalid(
    record: Activity | Title | UserErasure, fields: dict[str, Any]
) -> None:
    data = to_msgpack(msgspec.structs.replace(record, **fields))
    with pytest.raises(DECODE_ERRORS):
        decode_log(data)
    if isinstance(record, Title):
        with pytest.raises(DECODE_ERRORS):
            decode_title(data)


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x81\xa4type\xa4tick", b"\x82\xa4type\xa4tick\xa1x" + b"\x91" * 10**5]
)
def test_bytes_that_are_no_record_raise_a_decode_error(data: bytes) -> None:
    with pytest.raises(DECODE_ERRORS):
        decode_log(data)


def test_text_that_is_not_utf_8_raises_a_decode_error() -> None:
    with pytest.raises(DECODE_ERRORS):
        decode_log(to_msgpack(VALID_ERASURE).replace(b"\xa4user\xa1u", b"\xa4user\xa1\xff"))
    with pytest.raises(DECODE_ERRORS):
        decode_version(b'{"path":"\xff"}')
