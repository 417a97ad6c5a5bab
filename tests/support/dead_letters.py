"""Writes dead letters and other records to a broker."""

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import Producer

from streaming.kafka.dead_letters import dead_letter
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.topics import USER_EVENTS

INVALID_EVENT: Final = b'{"user":"u","title":"t","ts":1,"action":"yawn"}'


def message(
    offset: int, value: bytes | None = INVALID_EVENT, topic: str = USER_EVENTS, key: bytes | None = b"u"
) -> Message:
    """A record as a flow reads it."""
    return Message(topic, 0, offset, 1_000, key, value)


def write(config: Mapping[str, str], records: Sequence[Outgoing]) -> None:
    """Write records and wait for their delivery."""
    producer = Producer({**config})
    for record in records:
        producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
    assert producer.flush(20) == 0


def write_letters(config: Mapping[str, str], *rejected: tuple[Message, str]) -> None:
    """Write the dead letters of these records, each with its reason."""
    write(config, [dead_letter(record, reason) for record, reason in rejected])
