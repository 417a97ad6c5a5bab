"""Dead letters keep the invalid record or its beginning, and are counted by the type of their reason."""

import re
from hashlib import sha256

import pytest
from prometheus_client import REGISTRY

from streaming.kafka.dead_letters import (
    DEAD_LETTERS_WRITTEN,
    MAX_KEPT_BYTES,
    MAX_REASON_CHARS,
    REASONS,
    InvalidRecord,
    LetterBudget,
    check_id,
    check_times,
    dead_letter,
    decode,
)
from streaming.kafka.source import Message
from streaming.records import MAX_ID_BYTES, Event, decode_event
from streaming.topics import DEAD_LETTERS
from tests.support.paths import ROOT

VALID = b'{"user":"u","title":"t","ts":1}'


def message(value: bytes | None, key: bytes | None = b"k") -> Message:
    return Message("user-events", 3, 42, 1_000, key, value)


def count(reason: str) -> float:
    return REGISTRY.get_sample_value("premiere_dead_letters_total", {"reason": reason}) or 0.0


def test_dead_letter_contains_the_bytes_and_their_position() -> None:
    before = count("not JSON")
    letter = dead_letter(message(b"\xff{"), "not JSON: at byte 0")
    assert (letter.topic, letter.key, letter.value) == (DEAD_LETTERS, b"k", b"\xff{")
    assert dict(letter.headers) == {
        "topic": b"user-events",
        "partition": b"3",
        "offset": b"42",
        "appended": b"1000",
        "reason": b"not JSON: at byte 0",
        "length": b"2",
        "sha256": sha256(b"\xff{").hexdigest().encode(),
    }
    assert count("not JSON") == before + 1


def test_dead_letter_of_a_huge_record_is_truncated() -> None:
    value = b"x" * (MAX_KEPT_BYTES + 1)
    letter = dead_letter(message(value, key=value), "too large: " + "y" * 10_000)
    assert (letter.value, letter.key) == (value[:MAX_KEPT_BYTES], value[:MAX_KEPT_BYTES])
    headers = dict(letter.headers)
    assert headers["length"] == str(MAX_KEPT_BYTES + 1).encode()
    assert headers["sha256"] == sha256(value).hexdigest().encode()
    assert len(headers["reason"]) == MAX_REASON_CHARS


def test_record_without_key_and_value_has_a_dead_letter() -> None:
    letter = dead_letter(message(None, key=None), "tombstone: the record has no value")
    assert (letter.key, letter.value) == (None, b"")


def test_unknown_fields_are_ignored() -> None:
    assert decode(decode_event, message(VALID), 1_000) == Event(user="u", title="t", ts=1)
    assert decode(decode_event, message(VALID[:-1] + b',"more":[1,{"x":null}]}'), 1_000) == Event(
        user="u", title="t", ts=1
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"x" * 1_001, "too large"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (VALID + b"}", "not JSON"),
        (b"\xef\xbb\xbf" + VALID, "not JSON"),
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
def test_undecodable_record_is_invalid_with_a_reason_type(value: bytes | None, reason: str) -> None:
    with pytest.raises(InvalidRecord, match=f"^{reason}: "):
        decode(decode_event, message(value), 1_000)


def test_id_is_bounded_in_bytes() -> None:
    check_id("the title", "é" * (MAX_ID_BYTES // 2))
    with pytest.raises(InvalidRecord, match="the title has 258 bytes"):
        check_id("the title", "é" * (MAX_ID_BYTES // 2 + 1))


def test_deeply_nested_json_is_invalid() -> None:
    deep = b'{"user":"u","title":"t","ts":1,"x":' + b"[" * 100_000
    with pytest.raises(InvalidRecord, match=r"^not JSON: "):
        decode(decode_event, message(deep), len(deep))


def test_letters_beyond_the_budget_of_a_minute_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    now, name = [0.0], "premiere_dead_letters_dropped_total"
    budget = LetterBudget(letters=3, size=1_000, clock=lambda: now[0])
    letters = [dead_letter(message(b"{"), "not JSON: x")] * 2
    before = REGISTRY.get_sample_value(name) or 0.0
    assert [len(budget.take(letters)) for _ in range(3)] == [2, 1, 0]
    assert REGISTRY.get_sample_value(name) == before + 3
    (warning,) = caplog.messages
    assert "user-events-3-42" in warning
    now[0] = 60.0
    assert len(budget.take(letters)) == 2


def test_budget_also_limits_the_bytes_of_letters() -> None:
    budget = LetterBudget(letters=100, size=1_000, clock=lambda: 0.0)
    assert len(budget.take([dead_letter(message(b"x" * 300), "not JSON: x")] * 9)) == 3


def test_each_reason_is_counted_from_the_start() -> None:
    """An alert on an increase needs the series before the first letter."""
    raised = set[str]()
    for path in sorted((ROOT / "streaming").rglob("*.py")):
        raised |= set(re.findall(r"InvalidRecord\(\s*f?\"([a-zA-Z ]+):", path.read_text()))
    from_decode = {"missing field", "wrong type", "out of range", "not JSON"}
    assert raised | from_decode | {"unit"} == set(REASONS)
    (metric,) = DEAD_LETTERS_WRITTEN.collect()
    samples = {tuple(sample.labels.values()) for sample in metric.samples}
    assert {(reason,) for reason in REASONS} <= samples


def test_good_event_with_a_bad_record_time_names_the_record_time() -> None:
    with pytest.raises(InvalidRecord, match=r"^record time: "):
        check_times(1_700_000_000_000, 0, 3_600_000)
