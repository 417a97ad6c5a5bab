"""Dead letters are parsed and counted by reason, without duplicates."""

import pytest

from infra.operate.dead_letters import (
    EXCERPT_BYTES,
    NOTE_DONE,
    NOTE_STARTED,
    RESEND_NOTE,
    UNKNOWN_RECORD,
    DeadLetter,
    Notes,
    ResendState,
    list_letters,
)
from infra.operate.resend import resend_note
from streaming.kafka.dead_letters import MAX_KEPT_BYTES, dead_letter
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.topics import ACTIVITY, DEAD_LETTERS
from tests.support.dead_letters import message, write, write_letters


def stored(record: Outgoing, offset: int) -> Message:
    """The record as it is read from `dead-letters`."""
    return Message(DEAD_LETTERS, 0, offset, 2_000, record.key, record.value, list(record.headers))


def letter(offset: int, rejected: Message, reason: str = "not JSON: x") -> DeadLetter:
    return DeadLetter.parse(stored(dead_letter(rejected, reason), offset))


def test_letter_has_position_reason_and_excerpt_of_the_record() -> None:
    found = letter(3, message(7, b"\xff" + b"x" * 500, key=None), "not JSON: a: b")
    assert (found.offset, found.timestamp, found.source, found.reason_type) == (3, 2_000, "user-events-0-7", "not JSON")
    assert (found.length, found.resendable) == (501, True)
    shown = found.as_json()
    assert (shown["key"], shown["value"], shown["reason"]) == (None, "\\xff" + "x" * (EXCERPT_BYTES - 1), found.reason)


def test_record_without_the_headers_is_no_letter() -> None:
    with pytest.raises(ValueError, match="topic"):
        DeadLetter.parse(message(0))


@pytest.mark.parametrize(
    "rejected",
    [
        message(0, None),
        message(0, b""),
        message(0, b"x" * (MAX_KEPT_BYTES + 1)),
        message(0, key=b"k" * (MAX_KEPT_BYTES + 1)),
        message(0, topic=ACTIVITY),
    ],
    ids=["tombstone", "empty", "truncated value", "truncated key", "another topic"],
)
def test_incomplete_or_unknown_record_is_not_resendable(rejected: Message) -> None:
    assert letter(0, message(0)).resendable
    assert not letter(0, rejected).resendable


def test_notes_give_each_letter_its_resend_state() -> None:
    letters = [letter(offset, message(offset)) for offset in range(10, 14)]
    records = [stored(dead_letter(message(offset), "not JSON: x"), offset) for offset in range(10, 14)]
    records.append(stored(resend_note(letters[:2], NOTE_STARTED), 14))
    records.append(stored(resend_note(letters[:1], NOTE_DONE), 15))
    notes = Notes(records)
    states = [ResendState.RESENT, ResendState.UNCERTAIN, ResendState.PENDING, ResendState.PENDING]
    assert [notes.state(each) for each in letters] == states
    assert notes.state(letter(9, message(9))) is ResendState.PENDING  # retention deleted it


def test_letters_are_counted_by_reason_without_duplicates(new_kafka: dict[str, str]) -> None:
    write_letters(new_kafka, (message(0, b"{"), "not JSON: a"), (message(1), "unknown action: yawn"))
    write_letters(new_kafka, (message(1), "unknown action: yawn"), (message(2, b"}"), "not JSON: b"))
    write(new_kafka, [Outgoing(DEAD_LETTERS, b"x", b"y")])
    for invalid_note in (b"no json", b'["x"]', b"[-5, 0, 99999999]"):
        write(new_kafka, [Outgoing(DEAD_LETTERS, None, invalid_note, [(RESEND_NOTE, b"?")])])
    listing = list_letters(new_kafka, newest=2)
    assert {name: (group.letters, group.duplicates) for name, group in listing.reasons.items()} == {
        "not JSON": (2, 0), "unknown action": (1, 1), UNKNOWN_RECORD: (1, 0),
    }  # fmt: skip
    newest = listing.reasons["not JSON"].newest
    assert newest is not None
    assert (newest.source, newest.reason, newest.value) == ("user-events-0-2", "not JSON: b", b"}")
    assert [letter.source_offset for letter in listing.newest] == [1, 2]
    one_reason = list_letters(new_kafka, "unknown action", newest=5)
    assert list(one_reason.reasons) == ["unknown action"]
    assert [letter.source_offset for letter in one_reason.newest] == [1]
