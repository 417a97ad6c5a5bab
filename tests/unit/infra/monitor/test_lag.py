"""Lag is what the group has not committed, to the last record, on brokers that misreport their log's end too."""

from collections.abc import Iterable, Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from infra.errors import TopicError
from infra.local.embedded import HOST, free_port
from infra.monitor.lag import Lags, lag, patient
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
    assert lag({"bootstrap.servers": kafka}, {topic: [topic]})[0][:6] == (topic, topic, 0, 4, 17, 13)


def test_a_group_that_committed_nothing_has_everything_before_it(kafka: str, topic: str, producer: Producer) -> None:
    _produce(producer, topic, 5)
    assert lag({"bootstrap.servers": kafka}, {topic: [topic]})[0][:6] == (topic, topic, 0, None, 5, 5)


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


MINUTE = 60_000  # ms
BEGAN = 1_700_000_000_000  # ms


def _produce_at(producer: Producer, topic: str, times: Iterable[int], partition: int = 0) -> None:
    for number, time in enumerate(times):
        producer.produce(topic, b"%d" % number, partition=partition, timestamp=time)
    assert producer.flush(20) == 0


def _seconds(kafka: str, group: str, topic: str) -> list[float | None]:
    return [row.seconds for row in lag({"bootstrap.servers": kafka}, {group: [topic]})]


def test_in_seconds_it_is_the_record_times_from_the_first_that_waits_to_the_last(
    kafka: str, topic: str, producer: Producer
) -> None:
    _produce_at(producer, topic, (BEGAN + minute * MINUTE for minute in range(10)))
    assert _seconds(kafka, topic, topic) == [540.0]
    _commit(kafka, topic, topic, 4)  # record 4 waits, the last is record 9
    assert _seconds(kafka, topic, topic) == [300.0]
    _commit(kafka, topic, topic, 10)
    assert _seconds(kafka, topic, topic) == [0.0]


def test_record_times_that_go_back_are_no_negative_lag(kafka: str, topic: str, producer: Producer) -> None:
    _produce_at(producer, topic, [BEGAN + MINUTE, BEGAN])
    assert _seconds(kafka, topic, topic) == [0.0]


def test_two_groups_on_several_partitions_have_seconds_of_their_own(kafka: str, topic: str, producer: Producer) -> None:
    wide, other = topic + "-wide", topic + "-other"
    create({"bootstrap.servers": kafka}, [Topic(wide, 3, {})])
    for partition in (0, 1):
        _produce_at(producer, wide, (BEGAN + n * MINUTE for n in range(5)), partition)
    _commit(kafka, topic, wide, 2, 1)
    rows = lag({"bootstrap.servers": kafka}, {topic: [wide], other: [wide]})
    assert [(row.group, row.partition, row.lag, row.seconds) for row in rows] == [
        (topic, 0, 5, 240.0), (topic, 1, 3, 120.0), (topic, 2, 0, 0.0),
        (other, 0, 5, 240.0), (other, 1, 5, 240.0), (other, 2, 0, 0.0),
    ]  # fmt: skip


def test_seconds_follow_what_is_committed_and_what_comes(kafka: str, topic: str, producer: Producer) -> None:
    found = []
    with Lags({"bootstrap.servers": kafka}) as lags:
        for committed in range(3):
            _produce_at(producer, topic, [BEGAN + (committed * 2 + n) * MINUTE for n in range(2)])
            _commit(kafka, topic, topic, committed)
            found += [row.seconds for row in lags.read({topic: [topic]})]
            found += [row.seconds for row in lags.read({topic: [topic]})]  # from what is known already
    assert found == [60.0, 60.0, 120.0, 120.0, 180.0, 180.0]


def test_a_client_that_lost_its_broker_is_not_asked_twice(
    kafka: str, topic: str, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _produce(producer, topic, 3)
    monkeypatch.setattr("infra.monitor.lag.TIMEOUT", 1.0)
    with Lags({"bootstrap.servers": kafka}) as lags:
        lags._consumer.close()
        lags._consumer = Consumer({"bootstrap.servers": f"{HOST}:{free_port()}", "group.id": "lost", "log_level": 2})
        with pytest.raises(TopicError):
            lags.read({"g": [topic]})
        assert [row.lag for row in lags.read({"g": [topic]})] == [3]


@pytest.mark.parametrize("code", [KafkaError.NOT_COORDINATOR, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_a_broker_that_is_still_electing_is_asked_again_and_other_refusals_stand(code: int) -> None:
    refusals = [code, code, KafkaError.GROUP_AUTHORIZATION_FAILED]

    def ask() -> int:
        if refusals:
            raise KafkaException(KafkaError(refusals.pop(0)))
        return 7

    with pytest.raises(KafkaException, match="GROUP_AUTHORIZATION"):
        patient(ask)
    assert refusals == []
    refusals.append(code)
    assert patient(ask) == 7
