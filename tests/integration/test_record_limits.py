"""The largest records that the flows write fit into Kafka's limit of a record."""

import uuid
from typing import Final

from confluent_kafka import Producer
from pydantic.fields import FieldInfo

from infra.settings import Settings
from infra.topics import create_topics
from streaming.kafka.client import producer_config
from streaming.kafka.source import read_all
from streaming.records import MAX_ID_BYTES, Activity, decode_log, to_msgpack
from streaming.state.user_history import UserEvent
from streaming.state.user_state import UserState
from streaming.topics import Topic

LATE_MS: Final = 1_700_000_000_000


def max_activity_history() -> int:
    field: FieldInfo = Settings.model_fields["activity_history"]
    (limit,) = (found.le for found in field.metadata if hasattr(found, "le"))
    return int(limit)


def largest_activity(size: int) -> Activity:
    """A full history of the longest ids, with the most new events that are older than all of it."""
    state, number = UserState(size), 0
    user = "u" * MAX_ID_BYTES
    largest: list[Activity] = []
    for first in (LATE_MS, LATE_MS - size):
        events = []
        for _ in range(size):
            title = f"{number:06d}".ljust(MAX_ID_BYTES, "x")
            events.append(UserEvent(user, title, first + number % size, 3, None, 4095, 2**62 - 1 - number, LATE_MS))
            number += 1
        largest += [record for record in state.apply(events).records if isinstance(record, Activity)]
    return max(largest, key=lambda record: len(to_msgpack(record)))


def test_largest_activity_is_accepted_by_the_broker(kafka: str) -> None:
    size, topic = max_activity_history(), f"activity-{uuid.uuid4().hex[:8]}"
    record = largest_activity(size)
    assert len(record.titles) == size * 3 // 2
    value = to_msgpack(record)
    assert 700_000 < len(value) < 1_000_000
    create_topics({"bootstrap.servers": kafka}, [Topic(topic, 1, {})])
    producer = Producer(producer_config({"bootstrap.servers": kafka}))
    producer.produce(topic, value, record.user.encode())
    assert producer.flush(20) == 0
    (message,) = read_all({"bootstrap.servers": kafka}, topic)
    assert decode_log(message.value or b"") == record
