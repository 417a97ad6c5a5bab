"""The largest records that the flows write fit into Kafka's limit of a record."""

import uuid

from confluent_kafka import Producer

from infra.topics import create_topics
from streaming.kafka.client import producer_config
from streaming.kafka.source import read_all
from streaming.records import decode_log, to_msgpack
from streaming.topics import Topic
from tests.support.largest_activity import largest_activity, max_activity_history


def test_largest_activity_is_accepted_by_the_broker(kafka: str) -> None:
    record, topic = largest_activity(max_activity_history()), f"activity-{uuid.uuid4().hex[:8]}"
    value = to_msgpack(record)
    create_topics({"bootstrap.servers": kafka}, [Topic(topic, 1, {})])
    producer = Producer(producer_config({"bootstrap.servers": kafka}))
    producer.produce(topic, value, record.user.encode())
    assert producer.flush(20) == 0
    (message,) = read_all({"bootstrap.servers": kafka}, topic)
    assert decode_log(message.value or b"") == record
