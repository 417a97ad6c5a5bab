"""Dead letters are resent at most once, by reason, and not for erased users."""

from infra.operate.dead_letters import NOTE_STARTED, DeadLetter, list_letters
from infra.operate.resend import resend, resend_note
from streaming.flows.features import parse_events
from streaming.kafka.dead_letters import RESENT_FROM_HEADER
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import read_all
from streaming.topics import DEAD_LETTERS, ERASURE_REQUESTS, TITLE_LAUNCHES, USER_EVENTS
from tests.support.dead_letters import INVALID_EVENT, message, write, write_letters


def test_one_reason_is_resent_alone(new_kafka: dict[str, str]) -> None:
    write_letters(
        new_kafka,
        (message(0, b"{"), "not JSON: x"),
        (message(1), "unknown action: x"),
        (message(2, b"["), "not JSON: x"),
    )
    assert resend(new_kafka, 3, "unknown action").sent == 1
    later = resend(new_kafka, 3)
    assert (later.sent, later.skipped) == (2, {"already resent": 1})
    assert sorted(m.value or b"" for m in read_all(new_kafka, USER_EVENTS)) == sorted([b"{", INVALID_EVENT, b"["])


def test_letters_with_a_wrong_unit_of_time_are_not_resent(new_kafka: dict[str, str]) -> None:
    write_letters(new_kafka, (message(0), "unit: looks like seconds"), (message(1), "unknown action: x"))
    result = resend(new_kafka, 2)
    assert result.sent == 1
    assert list(result.skipped.values()) == [1]
    assert len(list(read_all(new_kafka, USER_EVENTS))) == 1


def test_resent_invalid_record_is_a_new_letter_with_its_first_source(new_kafka: dict[str, str]) -> None:
    write_letters(new_kafka, (message(9), "unknown action: x"))
    resend(new_kafka, 1)
    (resent,) = read_all(new_kafka, USER_EVENTS)
    (again,) = parse_events([resent]).letters
    assert dict(again.headers)[RESENT_FROM_HEADER] == b"user-events-0-9"
    write(new_kafka, [again])
    assert list_letters(new_kafka).reasons["unknown action"].letters == 2
    assert resend(new_kafka, 100).sent == 1


def test_letters_of_erased_users_are_not_resent(new_kafka: dict[str, str]) -> None:
    write(new_kafka, [Outgoing(ERASURE_REQUESTS, b"u", b'{"user":"u"}')])  # its letters may be written later
    (request,) = read_all(new_kafka, ERASURE_REQUESTS)
    other = message(1, key=b"v")
    erased = message(0)._replace(appended=request.appended)
    write_letters(new_kafka, (erased, "unknown action: x"), (other, "unknown action: x"))
    write_letters(new_kafka, (message(5, b"{", TITLE_LAUNCHES, b"u"), "not JSON: x"))  # a title with the same id
    back = message(3)._replace(appended=request.appended + 1)
    write_letters(new_kafka, (back, "unknown action: x"))
    assert list(list_letters(new_kafka).reasons) == ["unknown action", "not JSON"]
    result = resend(new_kafka, 100)
    assert (result.sent, result.skipped) == (3, {"of erased users": 1})
    assert [(m.key, m.headers[0][1]) for m in read_all(new_kafka, USER_EVENTS) if m.key == b"u"] == [
        (b"u", b"user-events-0-3")
    ]
    assert [m.key for m in read_all(new_kafka, TITLE_LAUNCHES)] == [b"u"]


def test_uncertain_letters_are_resent_only_if_included(new_kafka: dict[str, str]) -> None:
    write_letters(new_kafka, (message(0), "unknown action: x"), (message(1), "unknown action: x"))
    first = next(DeadLetter.parse(record) for record in read_all(new_kafka, DEAD_LETTERS))
    write(new_kafka, [resend_note([first], NOTE_STARTED)])
    assert resend(new_kafka, 0) == (0, {})  # no letter is below this offset
    progress: list[int] = []
    result = resend(new_kafka, 100, on_progress=progress.append)
    assert (result.sent, result.skipped, progress) == (1, {"uncertain": 1}, [1])
    assert resend(new_kafka, 100, include_uncertain=True).sent == 1
    assert resend(new_kafka, 100, include_uncertain=True).skipped == {"already resent": 2}
    assert len(list(read_all(new_kafka, USER_EVENTS))) == 2
