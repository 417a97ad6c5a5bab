"""No input stops the flow `titles`: each kind of invalid launch becomes a dead letter."""

import json
from typing import Any

import pytest

from features.text_encoders import TextEncoder, load_encoder
from streaming.kafka.source import Message
from streaming.records import MAX_GENRES, MAX_LAUNCH_BYTES, MIN_TIME_MS
from streaming.topics import DEAD_LETTERS, TITLE_LAUNCHES
from tests.support.titles import NOW, launch, run_flow


@pytest.fixture(scope="module")
def encode() -> TextEncoder:
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
        (b'{"title": "1", "withdrawn": true}', "moved"),
        (b'{"withdrawn": true}', "moved"),
        (json.dumps({"title": "\u00e9" * 129}).encode(), "out of range"),
        (b'{"title": "1", "text": {"a": 1}}', "wrong type"),
        (json.dumps({"title": "x" * 257}).encode(), "wrong type"),
        (json.dumps({"title": "1", "overview": "x" * 65_537}).encode(), "wrong type"),
        (json.dumps({"title": "1", "text": {str(n): "x" * 65_000 for n in range(20)}}).encode(), "too large"),
        (json.dumps({"title": "1", "ts": MIN_TIME_MS - 1}).encode(), "too old"),
        (json.dumps({"title": "1", "ts": NOW + 7_200_000}).encode(), "in the future"),
        (json.dumps({"title": "1", "ts": 10**30}).encode(), "in the future"),
        (json.dumps({"title": "1", "year": 10_000}).encode(), "out of range"),
        (json.dumps({"title": "1", "year": 0}).encode(), "out of range"),
        (json.dumps({"title": "1", "year": 2**80}).encode(), "out of range"),
        (json.dumps({"title": "1", "released": 2**62}).encode(), "out of range"),
        (json.dumps({"title": "1", "genres": ["g"] * (MAX_GENRES + 1)}).encode(), "out of range"),
        (json.dumps({"title": "1", "genres": ["g" * 300]}).encode(), "out of range"),
    ],
)
def test_invalid_launch_becomes_a_dead_letter(encode: TextEncoder, value: bytes | None, reason: str) -> None:
    run = run_flow(encode, Message(TITLE_LAUNCHES, 0, 4, NOW, b"1", value), launch("2", 5))
    (found,) = run.reasons()
    assert found.startswith(f"{reason}: ")
    assert [title.title for title in run.written()] == ["2"]
    (letter,) = run.letters.all()
    assert letter.topic == DEAD_LETTERS
    assert dict(letter.headers)["offset"] == b"4"


def test_largest_launch_becomes_a_title(encode: TextEncoder) -> None:
    fields: dict[str, Any] = {"name": "n" * 65_536, "genres": ["g" * 256] * MAX_GENRES, "overview": "o" * 65_536}
    base_bytes = len(launch("1", **fields, text={"a": ""}).value or b"")
    texts: dict[str, str] = {str(n): "x" * 60_000 for n in range((MAX_LAUNCH_BYTES - base_bytes) // 60_020)}
    run = run_flow(encode, launch("1", **fields, text=texts))
    assert run.reasons() == []
    (record,) = run.activity.all()
    assert len(record.value) < 150_000
