"""The partition of a key is the one that Kafka's clients choose."""

import uuid

import pytest
from confluent_kafka import Producer

from infra.topics import create_topics
from streaming.kafka.client import producer_config
from streaming.kafka.partitioner import PartitionRule, partition_of
from streaming.kafka.source import read_all
from streaming.topics import Topic

KEYS = ["", "a", "ab", "abc", "abcd", "abcde", "reader-1", "Amélie 🎬", *(f"user-{n}" for n in range(60))]


@pytest.mark.parametrize("partitions", [1, 8, 7])
def test_partition_is_the_one_of_a_real_producer(kafka: str, partitions: int) -> None:
    config, name = {"bootstrap.servers": kafka}, f"partitioner-{uuid.uuid4().hex[:8]}"
    create_topics(config, [Topic(name, partitions, {})])
    producer = Producer(producer_config(config))
    keys = [key for key in KEYS if key]  # a client chooses any partition for an empty key
    for key in keys:
        producer.produce(name, b"x", key.encode())
    assert producer.flush(20) == 0
    found = {message.key: message.partition for message in read_all(config, name)}
    assert found == {key.encode(): partition_of(key.encode(), partitions) for key in keys}


def test_only_records_since_the_present_number_of_partitions_are_checked() -> None:
    rule, right = PartitionRule(8, since=1_000), partition_of(b"reader-1", 8)
    assert not rule.is_broken_by(b"reader-1", right, 1_000)
    assert rule.is_broken_by(b"reader-1", (right + 1) % 8, 1_000)
    assert not rule.is_broken_by(b"reader-1", (right + 1) % 8, 999)
