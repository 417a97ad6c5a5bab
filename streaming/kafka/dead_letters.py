"""Dead letters: invalid records, stored with the reason in the topic `dead-letters`.

Invalid input is data: a second stream, never an exception that stops a flow. A dead letter contains the record's bytes
(at most the first 64 KB, with the length and hash of all). Its headers contain the record's topic, partition, offset
and append time. These identify duplicates after reprocessing, and allow resending the record once it is valid. An event
that an erasure request covers by its append time is never resent.
"""

import logging
import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final, TypeVar

from msgspec import DecodeError, Raw, ValidationError
from msgspec.json import Decoder
from prometheus_client import Counter

from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import MAX_ID_BYTES, MIN_TIME_MS
from streaming.topics import DEAD_LETTERS

log: Final = logging.getLogger(__name__)

MAX_KEPT_BYTES: Final = 65_536  # of the value, and of the key
RESENT_FROM_HEADER: Final = "resent-from"  # header of a resent dead letter: the position of the original record
MAX_REASON_CHARS: Final = 500
MAX_FUTURE: Final = timedelta(hours=1)  # how far an event's time may be ahead of its record's append time
MIN_RECORD_TIME_MS: Final = 946_684_800_000  # 2000-01-01: an earlier record time is missing, or in seconds
MAX_TIME_MS: Final = 4_102_444_800_000  # 2100-01-01: a later record time means that the broker's clock is wrong
MAX_LETTERS_PER_MINUTE: Final = 10_000
MAX_LETTER_BYTES_PER_MINUTE: Final = 64 << 20  # of keys and values
REASONS: Final = (
    "in the future", "key", "missing field", "moved", "not JSON", "out of range", "partition", "record time",
    "tombstone", "too large", "too old", "unit", "unknown action", "wrong type",
)  # fmt: skip
DEAD_LETTERS_WRITTEN: Final = Counter("premiere_dead_letters_total", "Invalid records, by reason.", ["reason"])
for reason in REASONS:  # an alert on an increase sees the first letter only if the counter existed before
    DEAD_LETTERS_WRITTEN.labels(reason)
LETTERS_DROPPED: Final = Counter(
    "premiere_dead_letters_dropped_total", "Invalid records that got no dead letter, because there were too many."
)

# msgspec's messages for a number that is outside its bounds.
_OUT_OF_RANGE: Final = re.compile(r"Expected `(int|float)` [<>]|^Number out of range")

_decode_fields: Final = Decoder(dict[str, Raw]).decode

T = TypeVar("T")


class LetterBudget:
    """Limits the dead letters per minute, so that a flood of invalid records fills no disk. The rest is only counted.

    One warning a minute names the position of the first record that got no letter.
    """

    def __init__(
        self,
        letters: int = MAX_LETTERS_PER_MINUTE,
        size: int = MAX_LETTER_BYTES_PER_MINUTE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_letters, self.max_size, self.clock = letters, size, clock
        self.letters, self.size, self.minute_ends_at, self.warned = 0, 0, float("-inf"), False

    def take(self, letters: Sequence[Outgoing]) -> list[Outgoing]:
        """The letters to write."""
        if (now := self.clock()) >= self.minute_ends_at:
            self.letters, self.size, self.minute_ends_at, self.warned = 0, 0, now + 60, False
        written = []
        for letter in letters:
            self.letters, self.size = self.letters + 1, self.size + len(letter.value) + len(letter.key or b"")
            if self.letters <= self.max_letters and self.size <= self.max_size:
                written.append(letter)
                continue
            LETTERS_DROPPED.inc()
            if not self.warned:
                self.warned, headers = True, {name: text.decode() for name, text in letter.headers}
                log.warning(
                    "Too many invalid records: no dead letter for %s-%s-%s (%s) and others of this minute.",
                    *(headers[name] for name in ("topic", "partition", "offset", "reason")),
                )
        return written


class InvalidRecord(ValueError):  # noqa: N818 - a classification of data, always caught by the flow
    """A record is invalid. The reason is "<type>: <detail>", with a type of `REASONS`: they label a metric."""


def dead_letter(message: Message, reason: str) -> Outgoing:
    """The dead letter of `message`. Counts it by the type of its reason."""
    DEAD_LETTERS_WRITTEN.labels(reason.partition(":")[0]).inc()
    value = message.value or b""
    headers = {
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "appended": str(message.appended),
        "reason": reason[:MAX_REASON_CHARS],
        "length": str(len(value)),
        "sha256": sha256(value).hexdigest(),
    }
    key = message.key and message.key[:MAX_KEPT_BYTES]
    encoded = [(name, text.encode()) for name, text in headers.items()]
    resent_from = [(name, text[:MAX_REASON_CHARS]) for name, text in message.headers if name == RESENT_FROM_HEADER][:1]
    return Outgoing(DEAD_LETTERS, key, value[:MAX_KEPT_BYTES], encoded + resent_from)


def decode(decoder: Callable[[bytes], T], message: Message, max_bytes: int) -> T:
    """Decode a message of at most `max_bytes` bytes. Raises InvalidRecord."""
    if message.value is None:
        raise InvalidRecord("tombstone: the record has no value")
    if len(message.value) > max_bytes:
        raise InvalidRecord(f"too large: {len(message.value)} bytes, the limit is {max_bytes}")
    try:
        return decoder(message.value)
    except ValidationError as error:
        reason = "missing field" if "missing required field" in str(error) else "wrong type"
        reason = "out of range" if _OUT_OF_RANGE.search(str(error)) else reason
        raise InvalidRecord(f"{reason}: {error}") from None
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"not JSON: {error}") from None


def check_id(name: str, value: str) -> None:
    """Check the size of an id. Raises InvalidRecord."""
    if (size := len(value.encode())) > MAX_ID_BYTES:
        raise InvalidRecord(f"out of range: {name} has {size} bytes, the limit is {MAX_ID_BYTES}")


def check_not_moved(message: Message, field: str, topic: str) -> None:
    """Check that a record does not set a flag that became a topic of its own. Raises InvalidRecord."""
    if message.value is None or f'"{field}"'.encode() not in message.value:
        return
    try:
        fields = _decode_fields(message.value)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return  # the complete check finds the fault
    if bytes(fields.get(field, b"")) == b"true":
        raise InvalidRecord(f"moved: a record with {field}=true belongs to the topic {topic}")


def check_times(ts: int, appended: int, max_ahead_ms: int) -> None:
    """Check an event time, which may be at most `max_ahead_ms` after the record time. Raises InvalidRecord."""
    check_record_time(appended)
    if ts < MIN_TIME_MS:
        raise InvalidRecord(f"too old: {ts} ms is before {MIN_TIME_MS}, the year 1900")
    if ts > appended + max_ahead_ms:
        raise InvalidRecord(f"in the future: {ts} ms, but the record was appended at {appended} ms")


def check_record_time(appended: int) -> None:
    """Check a record time, which some brokers let producers set. Raises InvalidRecord."""
    if not MIN_RECORD_TIME_MS <= appended <= MAX_TIME_MS:
        raise InvalidRecord(
            f"record time: {appended} ms is outside {MIN_RECORD_TIME_MS} to {MAX_TIME_MS}, the years 2000 to 2100"
        )
