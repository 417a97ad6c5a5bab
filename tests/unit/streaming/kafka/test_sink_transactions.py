"""Sinks with transactions on Apache Kafka: the broker refuses the late writes of a process that was replaced."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from infra.local.embedded import start_kafka
from infra.monitor.lag import read_lag
from infra.topics import create_topics
from streaming.errors import OwnedElsewhereError, OwnershipError
from streaming.kafka.client import PREFIX_KEY, client_config, consumer_config, producer_config, topic_name
from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.ownership import SOLE_PROCESS, Owner, Ownership, new_claim
from streaming.kafka.sink import KafkaSink, Outgoing, _Shard
from streaming.kafka.source import KafkaSource, Message, read_all
from streaming.topics import ACTIVITY, MODEL_VERSIONS, TITLES, USER_EVENTS, topics
from tests.support.streams import deadline, group_offset, poll_until

LEASE_S = 1.0


@pytest.fixture(scope="module")
def address(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_kafka(tmp_path_factory.mktemp("kafka"), kafka_home, "apache") as found:
        yield found


@pytest.fixture
def config(address: str, request: pytest.FixtureRequest) -> dict[str, str]:
    found = {"bootstrap.servers": address, PREFIX_KEY: f"t{abs(hash(request.node.nodeid))}"}
    create_topics(found, topics(1))
    return found


def start(config: dict[str, str], owner: Owner = SOLE_PROCESS, step: str = "features.activity") -> _Shard:
    return KafkaSink(config, owner=owner, transactional=True).build_part(step, "000", None)


def record(value: bytes, topic: str = ACTIVITY) -> list[list[Outgoing]]:
    return [[Outgoing(topic, b"k", value)]]


def write(part: _Shard, value: bytes, topic: str = ACTIVITY) -> None:
    part.write_batch(record(value, topic))
    part.snapshot()


def values(config: dict[str, str], topic: str = ACTIVITY) -> list[bytes | None]:
    return [message.value for message in read_all(config, topic)]


def committed_values(config: dict[str, str], topic: str = ACTIVITY) -> list[bytes]:
    """What a client reads that skips the records of aborted transactions."""
    consumer = Consumer({**consumer_config(config, "g"), "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic_name(config, topic), 0, 0)])
    found, is_late = list[bytes](), deadline(30)
    while not is_late():
        for message in consumer.consume(100, 0.1):
            if (error := message.error()) is None:
                found.append(message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:
                consumer.close()
                return found
    raise AssertionError("no end of the topic")


@pytest.mark.parametrize("stalls", ["in a transaction", "between transactions", "before its first record"])
def test_late_record_of_a_replaced_process_is_refused(config: dict[str, str], stalls: str) -> None:
    stalled, before = start(config), list[bytes]()
    if stalls != "before its first record":
        before = [b"early"]
        stalled.write_batch(record(b"early"))
        assert stalled.producer.flush(10) == 0
    if stalls == "between transactions":
        stalled.snapshot()
    successor = start(config)
    with pytest.raises(OwnershipError, match="Kafka fences this process"):
        write(stalled, b"late")
    write(successor, b"new")
    with pytest.raises(OwnershipError):
        stalled.snapshot()
    stalled.close()
    successor.close()
    assert values(config) == [*before, b"new"]
    assert committed_values(config) == (values(config) if stalls == "between transactions" else [b"new"])


def test_fenced_sink_names_the_process_that_has_taken_over(config: dict[str, str]) -> None:
    owners = [
        Ownership(config, new_claim("features", 0, 1, instance), threading.Event(), LEASE_S) for instance in ("a", "b")
    ]
    owners[0].acquire()
    stalled = start(config, owners[0])
    stalled.write_batch(record(b"early"))
    assert stalled.producer.flush(10) == 0
    owners[0]._ended.set()  # it stalls after its check
    owners[1].acquire()
    successor = start(config, owners[1])
    owners[0]._ended.clear()
    threading.Thread(target=owners[0]._renew_until_ended, daemon=True).start()  # it wakes up
    with pytest.raises(OwnedElsewhereError, match="taken over: features/0 on"):
        stalled.snapshot()
    write(successor, b"new")
    for part, owner in zip((stalled, successor), owners, strict=True):
        part.close()
        owner.release()
    assert values(config) == [b"early", b"new"]


def test_sinks_of_other_steps_and_deployments_do_not_fence_each_other(config: dict[str, str]) -> None:
    other = {**config, PREFIX_KEY: f"{config[PREFIX_KEY]}b"}
    create_topics(other, topics(1))
    parts = [start(config), start(config, step="titles.activity"), start(other)]
    for _ in range(2):
        for part in parts:
            write(part, b"v")
    assert (values(config), values(other)) == ([b"v"] * 4, [b"v"] * 2)


def test_record_is_read_before_its_transaction_ends(config: dict[str, str]) -> None:
    part = start(config)
    part.write_batch(record(b"v"))
    assert part.producer.flush(10) == 0
    assert (values(config), committed_values(config)) == ([b"v"], [])
    part.snapshot()
    assert committed_values(config) == [b"v"]
    part.close()


def test_producer_is_replaced_after_an_outage_once_its_transaction_has_ended(config: dict[str, str]) -> None:
    part = start(config)
    part.write_batch(record(b"a"))
    assert part.producer.flush(10) == 0
    part.outage.begin(KafkaError(KafkaError._TRANSPORT))
    producer = part.producer
    part.write_batch(record(b"b"))
    assert part.producer is producer
    part.snapshot()
    write(part, b"c")
    assert part.producer is not producer
    part.close()
    assert committed_values(config) == [b"a", b"b", b"c"]


def test_aborted_records_of_a_public_topic_are_not_read(config: dict[str, str]) -> None:
    producer = Producer(producer_config(config, "an application"))
    producer.init_transactions(30)
    for end in (producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        producer.produce(topic_name(config, USER_EVENTS), end.__name__.encode())
        assert producer.flush(10) == 0
        end(10)
    assert values(config, USER_EVENTS) == [b"commit_transaction"]


def read_to_the_end(config: dict[str, str], topic: str, position: CommitPosition) -> list[Message]:
    """Read a topic as a flow does, and commit the end to the group "g" after the records and after each pause."""
    source = KafkaSource(config, topic, "g", position=position, start={0: position.get(0) or 0})
    part = source.build_part("read", "0", None)
    messages = poll_until(part, lambda found: len(found) > 0)
    position.advance(0, messages[-1].offset + 1)
    is_late, end = deadline(30), messages[-1].offset + 2  # one marker follows
    group, name = topic_name(config, "g"), topic_name(config, topic)
    while group_offset(client_config(config), group, name) != end and not is_late():
        assert part.next_batch() == []
        part.snapshot()
        time.sleep(0.1)
    part.close()
    source.commit()
    return messages


def test_markers_of_transactions_do_not_count_as_lag(config: dict[str, str]) -> None:
    part, groups, position = start(config), {"g": [TITLES]}, CommitPosition({0: 0})
    write(part, b"a", TITLES)
    messages = read_to_the_end(config, TITLES, position)
    (row,) = read_lag(config, groups)
    assert (row.committed_offset, row.end_offset, row.records) == (2, 2, 0)
    write(part, b"b", TITLES)
    time.sleep(1)  # so that the times of the two records differ by a second
    write(part, b"c", TITLES)
    (row,) = read_lag(config, groups)
    assert (row.committed_offset, row.end_offset, row.records) == (2, 6, 4)
    assert (row.seconds or 0) > 0.9
    assert [m.offset for m in read_all(config, TITLES)] == [0, 2, 4]
    assert [m.offset for m in messages] == [0]


def test_lag_behind_a_last_record_is_zero(config: dict[str, str]) -> None:
    part = start(config)
    write(part, b"a", MODEL_VERSIONS)
    consumer = Consumer(consumer_config(config, "g"))
    consumer.commit(offsets=[TopicPartition(topic_name(config, MODEL_VERSIONS), 0, 1)], asynchronous=False)
    consumer.close()
    (row,) = read_lag(config, {"g": [MODEL_VERSIONS]})
    assert (row.committed_offset, row.end_offset, row.records, row.seconds) == (1, 2, 0, 0.0)
