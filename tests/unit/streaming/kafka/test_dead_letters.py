"""What cannot be used is kept whole, or its beginning with the hash of the whole, and counted by kind."""

from hashlib import sha256

import pytest
from prometheus_client import REGISTRY

from streaming.kafka.dead_letters import KEPT, Rejected, dead_letter, decode
from streaming.kafka.source import Message
from streaming.records import Event, decode_event
from streaming.topics import DEAD_LETTERS

GOOD = b'{"user":"u","title":"t","ts":1}'


def message(value: bytes | None, key: bytes | None = b"k") -> Message:
    return Message("user-events", 3, 42, 1_000, key, value)


def count(kind: str) -> float:
    return REGISTRY.get_sample_value("premiere_dead_letters_total", {"reason": kind}) or 0.0


def test_a_dead_letter_keeps_the_bytes_and_tells_where_they_lay() -> None:
    before = count("not JSON")
    letter = dead_letter(message(b"\xff{"), "not JSON: no wonder")
    assert (letter.topic, letter.key, letter.value) == (DEAD_LETTERS, b"k", b"\xff{")
    assert dict(letter.headers) == {
        "topic": b"user-events",
        "partition": b"3",
        "offset": b"42",
        "reason": b"not JSON: no wonder",
        "length": b"2",
        "sha256": sha256(b"\xff{").hexdigest().encode(),
    }
    assert count("not JSON") == before + 1


def test_of_a_huge_message_the_beginning_is_kept_with_the_length_and_hash_of_all() -> None:
    value = b"x" * (KEPT + 1)
    letter = dead_letter(message(value, key=value), "too large: " + "y" * 10_000)
    assert (letter.value, letter.key) == (value[:KEPT], value[:KEPT])
    headers = dict(letter.headers)
    assert headers["length"] == str(KEPT + 1).encode()
    assert headers["sha256"] == sha256(value).hexdigest().encode()
    assert len(headers["reason"]) == 500


def test_nothing_at_all_has_a_dead_letter_too() -> None:
    letter = dead_letter(message(None, key=None), "tombstone: there is no value")
    assert (letter.key, letter.value) == (None, b"")


def test_a_good_message_is_decoded_and_its_unknown_fields_are_left_alone() -> None:
    assert decode(decode_event, message(GOOD), 1_000) == Event(user="u", title="t", ts=1)
    assert decode(decode_event, message(GOOD[:-1] + b',"more":[1,{"x":null}]}'), 1_000) == Event(
        user="u", title="t", ts=1
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "tombstone"),
        (b"x" * 1_001, "too large"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (GOOD + b"}", "not JSON"),
        (b"\xef\xbb\xbf" + GOOD, "not JSON"),
        (b'{"user":"\xff","title":"t","ts":1}', "not JSON"),
        (b'{"user":"\\ud800","title":"t","ts":1}', "not JSON"),
        (b'{"user":"u","title":"t","ts":1,"rating":NaN}', "not JSON"),
        (b"null", "wrong type"),
        (b"[]", "wrong type"),
        (b'{"user":7,"title":"t","ts":1}', "wrong type"),
        (b'{"user":"u","title":"t","ts":"1"}', "wrong type"),
        (b'{"user":"u","title":"t","ts":1.5}', "wrong type"),
        (b'{"user":"u","title":"t","ts":true}', "wrong type"),
        (b'{"user":"u","title":null,"ts":1}', "wrong type"),
        (b'{"user":"","title":"t","ts":1}', "wrong type"),
        (b'{"user":"u","title":"%s","ts":1}' % (b"t" * 257), "wrong type"),
        (b'{"user":"u","title":"t"}', "missing field"),
        (b"{}", "missing field"),
    ],
)
def test_what_cannot_be_decoded_is_rejected_by_kind(value: bytes | None, kind: str) -> None:
    with pytest.raises(Rejected, match=f"^{kind}: "):
        decode(decode_event, message(value), 1_000)


def test_brackets_without_end_are_rejected_and_break_nothing() -> None:
    deep = b'{"user":"u","title":"t","ts":1,"x":' + b"[" * 100_000
    with pytest.raises(Rejected, match=r"^not JSON: "):
        decode(decode_event, message(deep), len(deep))
