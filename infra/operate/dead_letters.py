"""Read and count the dead letters: invalid records that a flow stored with the reason.

Letters are grouped by the type of their reason. A flow that restarts may write a letter again; such duplicates are
recognized by the position of the source record and its hash, and counted apart. Notes in the same topic state which
letters were resent (see `infra/operate/resend.py`).
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, Self

import msgspec

from infra.topics import topic_error
from streaming.errors import StreamError
from streaming.kafka.dead_letters import MAX_KEPT_BYTES
from streaming.kafka.source import Message, read_all
from streaming.topics import DEAD_LETTERS, ERASURE_REQUESTS, TITLE_LAUNCHES, TITLE_WITHDRAWALS, USER_EVENTS

RESEND_NOTE: Final = "resend"  # header of a note; its value lists letters by offset
NOTE_STARTED: Final = b"started"
NOTE_DONE: Final = b"done"
DEDUPLICATION_WINDOW: Final = 200_000  # newest letters among which duplicates are recognized
EXCERPT_BYTES: Final = 200  # of a key or a value that are displayed
UNKNOWN_RECORD: Final = "not a dead letter"  # reason type of records that no flow wrote
SOURCE_TOPICS: Final = (USER_EVENTS, ERASURE_REQUESTS, TITLE_LAUNCHES, TITLE_WITHDRAWALS)


class DeadLetter(NamedTuple):
    """One dead letter, and the invalid record that it contains."""

    offset: int  # in `dead-letters`
    timestamp: int  # when the letter was written, ms
    source_topic: str
    source_partition: int
    source_offset: int
    source_appended: int  # ms
    key: bytes | None
    value: bytes  # may be truncated
    reason: str  # "<type>: <detail>"
    length: int  # bytes of the complete value
    sha256: str  # of the complete value

    @classmethod
    def parse(cls, message: Message) -> Self:
        """Raises ValueError if the message is not a dead letter."""
        headers = {name: (text or b"").decode(errors="replace") for name, text in message.headers}
        try:
            topic = headers["topic"]
            position = int(headers["partition"]), int(headers["offset"]), int(headers.get("appended", 0))
            problem = headers["reason"], int(headers["length"]), headers["sha256"]
        except KeyError as error:
            raise ValueError(f"There is no header {error}.") from None
        return cls(message.offset, message.appended, topic, *position, message.key, message.value or b"", *problem)

    @property
    def reason_type(self) -> str:
        """The reason without its detail."""
        return self.reason.partition(":")[0]

    @property
    def source(self) -> str:
        """The position of the invalid record."""
        return f"{self.source_topic}-{self.source_partition}-{self.source_offset}"

    @property
    def resendable(self) -> bool:
        """Whether the record is complete and its topic is known."""
        complete = 0 < self.length == len(self.value) and len(self.key or b"") < MAX_KEPT_BYTES
        return complete and self.source_topic in SOURCE_TOPICS

    def as_json(self) -> dict[str, Any]:
        """The letter for people and scripts, with the beginning of its key and value."""
        return {
            "offset": self.offset, "timestamp_ms": self.timestamp, "source": self.source, "reason": self.reason,
            "length": self.length, "key": None if self.key is None else _excerpt(self.key),
            "value": _excerpt(self.value),
        }  # fmt: skip


class ResendState(Enum):
    """Whether a letter was resent. Each value is a byte in `Notes`."""

    PENDING = 0
    UNCERTAIN = 1  # in a batch whose resend was interrupted
    RESENT = 2


class Notes:
    """The notes among the letters: which letters were resent."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._first = 0  # offset of the first record of the topic
        self._states = bytearray()  # a ResendState for each record from there on
        for message in messages:
            if not self._states:
                self._first = message.offset
            self._states.extend(bytes(message.offset - self._first + 1 - len(self._states)))
            headers = dict(message.headers)
            if (note := headers.get(RESEND_NOTE)) is not None:
                state = ResendState.RESENT if note == NOTE_DONE else ResendState.UNCERTAIN
                for offset in _noted_offsets(message):
                    if self._first <= offset < message.offset:  # else retention deleted the letter
                        self._states[offset - self._first] = state.value

    def state(self, letter: DeadLetter) -> ResendState:
        """Whether the letter was resent."""
        index = letter.offset - self._first
        return ResendState(self._states[index]) if 0 <= index < len(self._states) else ResendState.PENDING


@dataclass
class ReasonGroup:
    """The letters with one type of reason."""

    letters: int = 0  # without duplicates
    duplicates: int = 0  # written again by a flow that restarted
    resent: int = 0  # of `letters`
    uncertain: int = 0  # of `letters`: in a batch whose resend was interrupted
    newest: DeadLetter | None = None


@dataclass
class Listing:
    """Counts of the whole topic."""

    reasons: dict[str, ReasonGroup] = field(default_factory=dict)
    newest: deque[DeadLetter] = field(default_factory=deque)  # the requested number of newest letters, oldest first
    end: int = 0  # offset after the last record that was read

    def as_json(self) -> dict[str, Any]:
        """The listing for scripts."""
        reasons = {
            name: {**vars(group), "newest": group.newest and group.newest.as_json()}
            for name, group in self.reasons.items()
        }
        return {"reasons": reasons, "letters": [letter.as_json() for letter in self.newest]}


def list_letters(config: Mapping[str, str], reason: str | None = None, newest: int = 0) -> Listing:
    """Count all letters, or those of one reason type, in bounded memory. Raises TopicError."""
    notes, listing = read_notes(config), Listing(newest=deque(maxlen=newest))
    for message, letter, is_duplicate in read_letters(config):
        listing.end = message.offset + 1
        name = UNKNOWN_RECORD if letter is None else letter.reason_type
        if RESEND_NOTE in dict(message.headers) or reason not in (None, name):
            continue
        group = listing.reasons.setdefault(name, ReasonGroup())
        if is_duplicate:
            group.duplicates += 1
            continue
        group.letters += 1
        if letter is not None:
            group.newest = letter
            group.resent += notes.state(letter) is ResendState.RESENT
            group.uncertain += notes.state(letter) is ResendState.UNCERTAIN
            listing.newest.append(letter)
    return listing


def read_notes(config: Mapping[str, str]) -> Notes:
    """All notes of the topic. Raises TopicError."""
    return Notes(_read(config, DEAD_LETTERS))


def read_erasures(config: Mapping[str, str]) -> dict[bytes, int]:
    """The append time (ms) of the last erasure request of each user, by key. Raises TopicError."""
    erasures: dict[bytes, int] = {}
    for message in _read(config, ERASURE_REQUESTS):
        if message.key is not None:
            erasures[message.key] = max(message.appended, erasures.get(message.key, 0))
    return erasures


def read_letters(config: Mapping[str, str]) -> Iterator[tuple[Message, DeadLetter | None, bool]]:
    """Each record of the topic, its letter if it is one, and whether that is a duplicate. Raises TopicError."""
    seen: OrderedDict[tuple[str, str], None] = OrderedDict()
    for message in _read(config, DEAD_LETTERS):
        try:
            letter = DeadLetter.parse(message)
        except ValueError:
            yield message, None, False
            continue
        identity = letter.source, letter.sha256  # the hash too: offsets start again if a topic is recreated
        yield message, letter, identity in seen
        seen.pop(identity, None)
        seen[identity] = None
        if len(seen) > DEDUPLICATION_WINDOW:
            seen.popitem(last=False)


def _read(config: Mapping[str, str], topic: str) -> Iterator[Message]:
    try:
        yield from read_all(config, topic)
    except StreamError as error:
        raise topic_error(error) from error


def _noted_offsets(message: Message) -> list[int]:
    """The letters that a note lists; none if the value is invalid."""
    try:
        return msgspec.json.decode(message.value or b"", type=list[int])
    except msgspec.DecodeError:
        return []


def _excerpt(value: bytes) -> str:
    return value[:EXCERPT_BYTES].decode(errors="backslashreplace")
