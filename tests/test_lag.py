"""Lag is what the group has not committed, to the last record, on brokers that misreport their log's end too."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from infra.lag import Lag, Lags, lag
from infra.topics import create
from streaming.topics import Topic


@pytest.fixture
def producer(kafka: str) -> Iterator[Producer]:
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 50})  # so that a batch holds many records
    yield producer
    assert producer.flush(20) == 0


def _produce(producer: Producer, topic: str, records: int, partition: int = 0) -> None:
    for number in range(records):
        producer.produce(topic, b"%d" % number, partition=partition)
    assert producer.flush(20) == 0


def _commit(kafka: str, group: str, topic: str, offset: int, partition: int = 0) -> None:
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": group, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
    consumer.close()


def test_the_last_batch_counts_in_full(kafka: str, topic: str, producer: Producer) -> None:
    _produce(producer, topic, 10)
    _produce(producer, topic, 7)
    _commit(kafka, topic, topic, 4)
    assert lag({"bootstrap.servers": kafka}, {topic: [topic]}) == [Lag(topic, topic, 0, 4, 17, 13)]


def test_a_group_that_committed_nothing_has_everything_before_it(kafka: str, topic: str, producer: Producer) -> None:
    _produce(producer, topic, 5)
    assert lag({"bootstrap.servers": kafka}, {topic: [topic]}) == [Lag(topic, topic, 0, None, 5, 5)]


def test_an_empty_partition_has_no_lag(kafka: str, topic: str, producer: Producer) -> None:
    wide = topic + "-wide"
    create({"bootstrap.servers": kafka}, [Topic(wide, 2, {})])
    _produce(producer, wide, 3, partition=1)
    rows = lag({"bootstrap.servers": kafka}, {"nobody-" + topic: [wide]})
    assert [(row.partition, row.lag) for row in rows] == [(0, 0), (1, 3)]


def test_a_group_that_has_it_all_has_no_lag_and_never_a_negative_one(
    kafka: str, topic: str, producer: Producer
) -> None:
    _produce(producer, topic, 9)
    _commit(kafka, topic, topic, 9)
    assert [row.lag for row in lag({"bootstrap.servers": kafka}, {topic: [topic]})] == [0]
    _commit(kafka, topic, topic, 1000)  # of a log that was longer
    assert [row.lag for row in lag({"bootstrap.servers": kafka}, {topic: [topic]})] == [0]


def test_reading_again_sees_what_came_meanwhile(kafka: str, topic: str, producer: Producer) -> None:
    with Lags({"bootstrap.servers": kafka}) as lags:
        ends = []
        for records in (1, 6, 0, 3):
            _produce(producer, topic, records)
            ends += [row.end for row in lags.read({topic: [topic]})]
    assert ends == [1, 7, 7, 10]


def test_a_topic_that_is_not_there_has_no_row(kafka: str, topic: str) -> None:
    assert lag({"bootstrap.servers": kafka}, {topic: [topic + "-missing"]}) == []
