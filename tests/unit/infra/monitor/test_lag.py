"""Consumer lag in records and seconds, also on brokers that report a wrong end offset."""

from collections.abc import Iterable, Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from infra.errors import TopicError
from infra.local.embedded import LOOPBACK, free_port
from infra.monitor.lag import LagReader, read_lag, retry_during_election
from infra.topics import create_topics
from streaming.topics import Topic
from tests.support.kafka import commit_offset


@pytest.fixture
def producer(kafka: str) -> Iterator[Producer]:
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 50})  # many records per batch
    yield producer
    assert producer.flush(20) == 0


def _produce(producer: Producer, topic: str, records: int, partition: int = 0) -> None:
    for number in range(records):
        producer.produce(topic, b"%d" % number, partition=partition)
    assert producer.flush(20) == 0


def test_lag_counts_all_records_of_last_batch(kafka: str, topic: str, producer: Producer) -> None:
    _produce(producer, topic, 10)
    _produce(producer, topic, 7)
    commit_offset(kafka, topic, topic, 4)
    assert read_lag({"bootstrap.servers": kafka}, {topic: [topic]})[0][:6] == (topic, topic, 0, 4, 17, 13)


def test_group_without_commit_lags_by_all_records(kafka: str, topic: str, producer: Producer) -> None:
    _produce(producer, topic, 5)
    assert read_lag({"bootstrap.servers": kafka}, {topic: [topic]})[0][:6] == (topic, topic, 0, None, 5, 5)


def test_empty_partition_has_no_lag(kafka: str, topic: str, producer: Producer) -> None:
    wide = topic + "-wide"
    create_topics({"bootstrap.servers": kafka}, [Topic(wide, 2, {})])
    _produce(producer, wide, 3, partition=1)
    rows = read_lag({"bootstrap.servers": kafka}, {"new-" + topic: [wide]})
    assert [(row.partition, row.records) for row in rows] == [(0, 0), (1, 3)]


def test_lag_is_never_negative(kafka: str, topic: str, producer: Producer) -> None:
    _produce(producer, topic, 9)
    commit_offset(kafka, topic, topic, 9)
    assert [row.records for row in read_lag({"bootstrap.servers": kafka}, {topic: [topic]})] == [0]
    commit_offset(kafka, topic, topic, 1000)  # from a former, longer log
    assert [row.records for row in read_lag({"bootstrap.servers": kafka}, {topic: [topic]})] == [0]


def test_second_read_sees_new_records(kafka: str, topic: str, producer: Producer) -> None:
    with LagReader({"bootstrap.servers": kafka}) as lags:
        ends = []
        for records in (1, 6, 0, 3):
            _produce(producer, topic, records)
            ends += [row.end_offset for row in lags.read({topic: [topic]})]
    assert ends == [1, 7, 7, 10]


def test_missing_topic_has_no_row(kafka: str, topic: str) -> None:
    assert read_lag({"bootstrap.servers": kafka}, {topic: [topic + "-missing"]}) == []


MINUTE_MS = 60_000
START_MS = 1_700_000_000_000


def _produce_at(producer: Producer, topic: str, times: Iterable[int], partition: int = 0) -> None:
    for number, time in enumerate(times):
        producer.produce(topic, b"%d" % number, partition=partition, timestamp=time)
    assert producer.flush(20) == 0


def _seconds(kafka: str, group: str, topic: str) -> list[float | None]:
    return [row.seconds for row in read_lag({"bootstrap.servers": kafka}, {group: [topic]})]


def test_lag_in_seconds_spans_uncommitted_record_times(kafka: str, topic: str, producer: Producer) -> None:
    _produce_at(producer, topic, (START_MS + minute * MINUTE_MS for minute in range(10)))
    assert _seconds(kafka, topic, topic) == [540.0]
    commit_offset(kafka, topic, topic, 4)  # record 4 is the first uncommitted one, record 9 the last
    assert _seconds(kafka, topic, topic) == [300.0]
    commit_offset(kafka, topic, topic, 10)
    assert _seconds(kafka, topic, topic) == [0.0]


def test_decreasing_record_times_give_no_negative_lag(kafka: str, topic: str, producer: Producer) -> None:
    _produce_at(producer, topic, [START_MS + MINUTE_MS, START_MS])
    assert _seconds(kafka, topic, topic) == [0.0]


def test_lag_in_seconds_is_per_group_and_partition(kafka: str, topic: str, producer: Producer) -> None:
    wide, other = topic + "-wide", topic + "-other"
    create_topics({"bootstrap.servers": kafka}, [Topic(wide, 3, {"retention.ms": "-1"})])
    for partition in (0, 1):
        _produce_at(producer, wide, (START_MS + n * MINUTE_MS for n in range(5)), partition)
    commit_offset(kafka, topic, wide, 2, 1)
    rows = read_lag({"bootstrap.servers": kafka}, {topic: [wide], other: [wide]})
    assert [(row.group, row.partition, row.records, row.seconds) for row in rows] == [
        (topic, 0, 5, 240.0), (topic, 1, 3, 120.0), (topic, 2, 0, 0.0),
        (other, 0, 5, 240.0), (other, 1, 5, 240.0), (other, 2, 0, 0.0),
    ]  # fmt: skip


def test_lag_in_seconds_follows_commits_and_new_records(kafka: str, topic: str, producer: Producer) -> None:
    found = []
    with LagReader({"bootstrap.servers": kafka}) as lags:
        for committed in range(3):
            _produce_at(producer, topic, [START_MS + (committed * 2 + n) * MINUTE_MS for n in range(2)])
            commit_offset(kafka, topic, topic, committed)
            found += [row.seconds for row in lags.read({topic: [topic]})]
            found += [row.seconds for row in lags.read({topic: [topic]})]  # from the cached record times
    assert found == [60.0, 60.0, 120.0, 120.0, 180.0, 180.0]


def test_reader_reconnects_after_lost_broker(
    kafka: str, topic: str, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _produce(producer, topic, 3)
    monkeypatch.setattr("infra.monitor.lag.BROKER_TIMEOUT_S", 1.0)
    with LagReader({"bootstrap.servers": kafka}) as lags:
        lags._consumer.close()
        lost = Consumer({"bootstrap.servers": f"{LOOPBACK}:{free_port()}", "group.id": "lost", "log_level": 2})
        lags._clients.current = lags._clients.current._replace(consumer=lost)
        with pytest.raises(TopicError):
            lags.read({"g": [topic]})
        assert [row.records for row in lags.read({"g": [topic]})] == [3]


@pytest.mark.parametrize("code", [KafkaError.NOT_COORDINATOR, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_only_election_errors_are_retried(code: int) -> None:
    errors = [code, code, KafkaError.GROUP_AUTHORIZATION_FAILED]

    def request() -> int:
        if errors:
            raise KafkaException(KafkaError(errors.pop(0)))
        return 7

    with pytest.raises(KafkaException, match="GROUP_AUTHORIZATION"):
        retry_during_election(request)
    assert errors == []
    errors.append(code)
    assert retry_during_election(request) == 7
