"""Decoding is strict about types, ignores unknown fields, and reads a rating as an action."""

import msgspec
import pytest

from model.actions import ACTIONS
from streaming.records import (
    EraseUser,
    Event,
    Launch,
    Tick,
    UserErasure,
    action_code,
    decode_erase_user,
    decode_event,
    decode_launch,
    decode_log,
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
    assert decode_erase_user(b'{"user":"u","erase":true,"reason":"mail"}') == EraseUser(user="u", erase=True)


@pytest.mark.parametrize("launch", [b'{"title":7}', b'{"title":""}', b'{"title":"t","genres":"Drama"}', b"{}"])
def test_launch_with_a_wrong_type_is_invalid(launch: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_launch(launch)


def test_json_round_trip_keeps_the_launch() -> None:
    launch = Launch(title="t", name="Amélie 🎬", genres=["Comedy"], text={"tags": "slow burn"}, year=2001)
    assert decode_launch(to_json(launch)) == launch
