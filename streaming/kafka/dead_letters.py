"""What a flow cannot use, kept with its reason.

Bad input is data: a second stream, never an exception that stops a flow. A dead letter holds the bytes as they came
(the first 64 KB of them, with their length and hash), and its headers say where they lay, so that a replay's doubles
can be told by topic, partition and offset, and what was wrong can be sent again once it is mended. Not what a viewer
sent who asked to be forgotten later: a note of the request lies among the letters, behind those that it covers.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Final, TypeVar

from msgspec import DecodeError, ValidationError
from prometheus_client import Counter

from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import FLOOR_MS
from streaming.topics import DEAD_LETTERS

KEPT: Final = 65_536  # bytes of the value, and of the key
REPLAYED: Final = "replayed-from"  # header of a record that was a dead letter, with where it first lay
FORGOTTEN: Final = "forgotten"  # header of such a note, whose key is the viewer
DETAIL: Final = 500  # characters of a reason
FUTURE: Final = timedelta(hours=1)  # that an event may be ahead of its own Kafka record
CEILING_MS: Final = 4_102_444_800_000  # 2100-01-01: beyond it a broker's clock is wrong
LETTERS: Final = Counter("premiere_dead_letters", "messages that a flow could not use", ["reason"])

_BEYOND: Final = re.compile(
    r"Expected `(int|float)` [<>]|^Number out of range"
)  # a number, and more or less than may be

T = TypeVar("T")


class Rejected(ValueError):  # noqa: N818 - a verdict on data, caught where it is made
    """A message cannot be used. The reason begins with its kind and a colon: few kinds, so that they can be counted."""


def dead_letter(message: Message, reason: str) -> Outgoing:
    """The record that keeps `message`, counted under the kind of its reason."""
    LETTERS.labels(reason.partition(":")[0]).inc()
    value = message.value or b""
    headers = {
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "reason": reason[:DETAIL],
        "length": str(len(value)),
        "sha256": sha256(value).hexdigest(),
    }
    key = message.key and message.key[:KEPT]
    again = [(name, told[:DETAIL]) for name, told in message.headers if name == REPLAYED][:1]
    return Outgoing(DEAD_LETTERS, key, value[:KEPT], [(n, text.encode()) for n, text in headers.items()] + again)


def forgotten_note(message: Message) -> Outgoing:
    """The note of a request to forget: it is kept as long as the letters before it are."""
    where = f"{message.topic}-{message.partition}-{message.offset}"
    return Outgoing(DEAD_LETTERS, message.key, b"", [(FORGOTTEN, where.encode())])


def decode(decoder: Callable[[bytes], T], message: Message, limit: int) -> T:
    """The value of a message of at most `limit` bytes. Raises Rejected."""
    if message.value is None:
        raise Rejected("tombstone: there is no value")
    if len(message.value) > limit:
        raise Rejected(f"too large: {len(message.value)} bytes of at most {limit}")
    try:
        return decoder(message.value)
    except ValidationError as error:
        kind = "missing field" if "missing required field" in str(error) else "wrong type"
        kind = "out of range" if _BEYOND.search(str(error)) else kind
        raise Rejected(f"{kind}: {error}") from None
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"not JSON: {error}") from None


def check_times(ts: int, appended: int, ahead: int) -> None:
    """When something happened, and its record's time: `ahead` ms of it at most. Raises Rejected."""
    if ts < FLOOR_MS:
        raise Rejected(f"too old: {ts} ms lies before {FLOOR_MS}, the year 1900")
    if ts > appended + ahead:
        raise Rejected(f"in the future: {ts} ms, in a record of {appended} ms")
    check_clock(appended)


def check_clock(appended: int) -> None:
    """A record's time, which some brokers let producers set. Raises Rejected where no calendar holds it."""
    if not FLOOR_MS <= appended <= CEILING_MS:
        raise Rejected(f"record time: {appended} ms lies outside {FLOOR_MS} to {CEILING_MS}, the years 1900 to 2100")
