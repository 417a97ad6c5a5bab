"""What a producer of launches may send wrong: each kind becomes a dead letter, and the flow goes on."""

import json
from typing import Any

import pytest

from features.text_encoders import Encoder, load_encoder
from streaming.flows.titles import GENRES, LARGEST
from streaming.kafka.source import Message
from streaming.records import FLOOR_MS
from streaming.topics import DEAD_LETTERS, TITLE_LAUNCHES
from tests.support.titles import NOW, launch, play


@pytest.fixture(scope="module")
def encode() -> Encoder:
    return load_encoder()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"title": "\\ud800"}', "not JSON"),
        (b"[]", "wrong type"),
        (b'{"name": "x"}', "missing field"),
        (b'{"title": ""}', "wrong type"),
        (b'{"title": 7}', "wrong type"),
        (b'{"title": null}', "wrong type"),
        (b'{"title": "1", "name": null}', "wrong type"),
        (b'{"title": "1", "genres": "Drama"}', "wrong type"),
        (b'{"title": "1", "genres": [null]}', "wrong type"),
        (b'{"title": "1", "year": 1995.5}', "wrong type"),
        (b'{"title": "1", "withdrawn": "yes"}', "wrong type"),
        (b'{"title": "1", "text": {"a": 1}}', "wrong type"),
        (json.dumps({"title": "x" * 257}).encode(), "wrong type"),
        (json.dumps({"title": "1", "overview": "x" * 65_537}).encode(), "wrong type"),
        (json.dumps({"title": "1", "text": {str(n): "x" * 65_000 for n in range(20)}}).encode(), "too large"),
        (json.dumps({"title": "1", "ts": FLOOR_MS - 1}).encode(), "too old"),
        (json.dumps({"title": "1", "ts": NOW + 7_200_000}).encode(), "in the future"),
        (json.dumps({"title": "1", "ts": 10**30}).encode(), "in the future"),
        (json.dumps({"title": "1", "year": 10_000}).encode(), "out of range"),
        (json.dumps({"title": "1", "year": 2**80}).encode(), "out of range"),
        (json.dumps({"title": "1", "released": 2**62}).encode(), "out of range"),
        (json.dumps({"title": "1", "genres": ["g"] * (GENRES + 1)}).encode(), "out of range"),
        (json.dumps({"title": "1", "genres": ["g" * 300]}).encode(), "out of range"),
    ],
)
def test_what_cannot_be_used_becomes_a_dead_letter_and_the_flow_goes_on(
    encode: Encoder, value: bytes | None, reason: str
) -> None:
    run = play(encode, Message(TITLE_LAUNCHES, 0, 4, NOW, b"1", value), launch("2", 5))
    (told,) = run.reasons()
    assert told.startswith(f"{reason}: ")
    assert [title.title for title in run.known()] == ["2"]
    (letter,) = run.dead.all()
    assert letter.topic == DEAD_LETTERS
    assert dict(letter.headers)["offset"] == b"4"


def test_the_largest_launch_still_becomes_a_title(encode: Encoder) -> None:
    fields: dict[str, Any] = {"name": "n" * 65_536, "genres": ["g" * 256] * GENRES, "overview": "o" * 65_536}
    bare = len(launch("1", **fields, text={"a": ""}).value or b"")
    texts: dict[str, str] = {str(n): "x" * 60_000 for n in range((LARGEST - bare) // 60_020)}
    run = play(encode, launch("1", **fields, text=texts))
    assert run.reasons() == []
    (record,) = run.activity.all()
    assert len(record.value) < 150_000
