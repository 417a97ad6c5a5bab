"""What could not be used, listed by the kind of its reason, and sent again once it is mended.

A letter is sent again at most once, whatever is interrupted: before a batch of letters goes out, a note of it is put
into the topic `dead-letters` itself, and a second one when all of it was delivered. (A group's offset would not do: it
knows no kinds, and Kafka forgets it before the letters.) A letter that a note covers is passed over unless asked for
`again`. What is sent again carries the header `replayed-from`; where it still cannot be used it becomes a new letter.

A letter of a viewer who asked to be forgotten after it is not sent: it would bring back what is gone. The flow
`features` leaves a note of each request among the letters, so that it is kept as long as they are.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple, Self

import msgspec

from infra.errors import TopicError
from streaming.kafka.client import StreamError
from streaming.kafka.dead_letters import FORGOTTEN, KEPT, REPLAYED
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import Message, read_all
from streaming.topics import DEAD_LETTERS, TITLE_LAUNCHES, USER_EVENTS

NOTE: Final = "replay"  # header of a note, whose value lists letters by their offsets
BATCH: Final = 500  # letters a note: an interruption leaves so many in doubt
REMEMBERED: Final = 200_000  # newest letters among which doubles are noticed
SHOWN: Final = 200  # bytes of a key or a value that are shown
FOREIGN: Final = "no dead letter"  # the kind of a record that something else wrote
_SOURCES: Final = (USER_EVENTS, TITLE_LAUNCHES)
_BEGUN, _DONE = 1, 2


class Letter(NamedTuple):
    """One dead letter: where it lies, and where what it keeps lay."""

    number: int  # its offset in `dead-letters`
    at: int  # when it was written, ms
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    reason: str
    length: int  # of the whole value
    sha256: str

    @classmethod
    def of(cls, message: Message) -> Self:
        """Raises ValueError where it is none."""
        told = {name: (text or b"").decode(errors="replace") for name, text in message.headers}
        try:
            where = told["topic"], int(told["partition"]), int(told["offset"])
            what = told["reason"], int(told["length"]), told["sha256"]
        except KeyError as error:
            raise ValueError(f"There is no header {error}.") from None
        return cls(message.offset, message.appended, *where, message.key, message.value or b"", *what)

    @property
    def kind(self) -> str:
        """What was wrong, in a word or two."""
        return self.reason.partition(":")[0]

    @property
    def where(self) -> str:
        """What tells doubles."""
        return f"{self.topic}-{self.partition}-{self.offset}"

    @property
    def sendable(self) -> bool:
        """Whether all of it was kept, and it says where it belongs."""
        kept = 0 < self.length == len(self.value) and len(self.key or b"") < KEPT
        return kept and self.topic in _SOURCES

    def shown(self) -> dict[str, Any]:
        """For people and scripts."""
        return {
            "number": self.number, "at": self.at, "from": self.where, "reason": self.reason, "length": self.length,
            "key": None if self.key is None else _text(self.key), "value": _text(self.value),
        }  # fmt: skip


class _Notes:
    """Which letters are being sent again or were, a byte a record of the topic; and which may not be."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.first, self.marks = 0, bytearray()
        self.forgotten: dict[bytes, int] = {}  # viewer -> where the note of the last request lies
        for message in messages:
            if not self.marks:
                self.first = message.offset
            self.marks.extend(bytes(message.offset - self.first + 1 - len(self.marks)))
            headers = dict(message.headers)
            if FORGOTTEN in headers and message.key is not None:
                self.forgotten[message.key] = message.offset
            if (state := headers.get(NOTE)) is not None:
                for number in _numbers(message):
                    if self.first <= number < message.offset:  # else retention took it
                        self.marks[number - self.first] = _DONE if state == b"done" else _BEGUN

    def __getitem__(self, letter: Letter) -> int:
        at = letter.number - self.first
        return self.marks[at] if 0 <= at < len(self.marks) else 0

    def cover(self, letter: Letter) -> bool:
        """Whether the letter's viewer asked to be forgotten after it. A letter whose key is no viewer's is no event."""
        return letter.topic == USER_EVENTS and self.forgotten.get(letter.key or b"", -1) > letter.number


@dataclass
class ReasonGroup:
    """The letters of one kind."""

    letters: int = 0  # each once
    doubles: int = 0  # of letters that a flow wrote again after a crash
    replayed: int = 0  # of the letters: sent again
    in_doubt: int = 0  # of the letters: in a batch whose sending was interrupted
    newest: Letter | None = None


@dataclass
class Listing:
    """The whole topic, counted."""

    kinds: dict[str, ReasonGroup] = field(default_factory=dict)
    last: deque[Letter] = field(default_factory=deque)  # the newest letters, as many as were asked for
    end: int = 0  # offset after the last record that was seen

    def as_json(self) -> dict[str, Any]:
        """All of it for scripts."""
        kinds = {
            name: {**vars(kind), "newest": kind.newest and kind.newest.shown()} for name, kind in self.kinds.items()
        }
        return {"kinds": kinds, "letters": [letter.shown() for letter in self.last]}


class Sent(NamedTuple):
    """What a replay did."""

    sent: int
    impossible: Counter[str]  # by why


def listing(config: Mapping[str, str], reason: str | None = None, last: int = 0) -> Listing:
    """What lies in the topic, in bounded memory. Raises TopicError."""
    notes, found = _Notes(_read(config)), Listing(last=deque(maxlen=last))
    for message, letter, double in _letters(config):
        found.end = message.offset + 1
        name = FOREIGN if letter is None else letter.kind
        if {NOTE, FORGOTTEN} & dict(message.headers).keys() or reason not in (None, name):
            continue
        kind = found.kinds.setdefault(name, ReasonGroup())
        if double:
            kind.doubles += 1
            continue
        kind.letters += 1
        if letter is not None:
            kind.newest = letter
            kind.replayed += notes[letter] == _DONE
            kind.in_doubt += notes[letter] == _BEGUN
            found.last.append(letter)
    return found


def replay(
    config: Mapping[str, str],
    before: int,
    reason: str | None = None,
    again: bool = False,
    told: Callable[[int], None] = lambda sent: None,
) -> Sent:
    """Send the letters below offset `before` to their topics again, `again` those in doubt too; `told` hears how many
    were sent. Raises TopicError."""
    impossible: Counter[str] = Counter()
    due = _due(config, before, reason, (_DONE,) if again else (_BEGUN, _DONE), impossible)
    sent, writer = 0, KafkaSink(config).build_part("replay", "000", None)

    def deliver(records: Iterable[Outgoing]) -> None:
        writer.write_batch([list(records)])
        writer.snapshot()

    try:
        while batch := list(islice(due, BATCH)):
            deliver([_note(batch, b"begun")])
            deliver(_again(letter) for letter in batch)
            deliver([_note(batch, b"done")])
            sent += len(batch)
            told(sent)
    except StreamError as error:
        raise TopicError(
            f"{sent} letters were sent, then: {error} Up to {BATCH} more are in doubt: `premiere dead-letters` counts "
            "them, and only `--again` sends them once more."
        ) from error
    finally:
        writer.close()
    return Sent(sent, impossible)


def _due(
    config: Mapping[str, str], before: int, reason: str | None, passed: Sequence[int], impossible: Counter[str]
) -> Iterator[Letter]:
    """The letters to send, each once; why others cannot be sent is counted."""
    notes = _Notes(_read(config))
    for message, letter, double in _letters(config):
        if message.offset >= before:
            return
        if letter is None or double or reason not in (None, letter.kind):
            continue
        if notes[letter] in passed:
            impossible["sent before" if notes[letter] == _DONE else "in doubt"] += 1
        elif notes.cover(letter):
            impossible["of forgotten viewers"] += 1
        elif letter.sendable:
            yield letter
        else:
            impossible["not kept whole" if letter.length else "empty"] += 1


def _letters(config: Mapping[str, str]) -> Iterator[tuple[Message, Letter | None, bool]]:
    """Each record with its letter, where it is one, and whether that was there before. Raises TopicError."""
    seen: dict[tuple[str, str], None] = {}
    for message in _read(config):
        try:
            letter = Letter.of(message)
        except ValueError:
            yield message, None, False
            continue
        same = letter.where, letter.sha256  # the hash too: offsets begin anew where a topic was made anew
        yield message, letter, same in seen
        seen.pop(same, None)
        seen[same] = None
        if len(seen) > REMEMBERED:
            del seen[next(iter(seen))]


def _read(config: Mapping[str, str]) -> Iterator[Message]:
    try:
        yield from read_all(config, DEAD_LETTERS)
    except StreamError as error:
        raise TopicError(str(error)) from error


def _note(batch: Sequence[Letter], state: bytes) -> Outgoing:
    return Outgoing(DEAD_LETTERS, None, json.dumps([letter.number for letter in batch]).encode(), [(NOTE, state)])


def _numbers(message: Message) -> list[int]:
    """The letters that a note lists; none where something else wrote it."""
    try:
        return msgspec.json.decode(message.value or b"", type=list[int])
    except msgspec.DecodeError:
        return []


def _again(letter: Letter) -> Outgoing:
    return Outgoing(letter.topic, letter.key, letter.value, [(REPLAYED, letter.where.encode())])


def _text(value: bytes) -> str:
    return value[:SHOWN].decode(errors="backslashreplace")
