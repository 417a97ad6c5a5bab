"""Group offsets: one asynchronous commit at a time, and a final commit that waits."""

import time

import pytest
from confluent_kafka import Consumer, KafkaError

from infra.local.embedded import free_port
from streaming.kafka.client import consumer_config
from streaming.kafka.group_offsets import GroupPosition, commit_offsets
from streaming.kafka.reconnect import Outage
from tests.support.streams import deadline, group_offset, new_topic


@pytest.fixture
def config(kafka: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka}


def test_final_commit_stores_the_offset_of_each_partition(config: dict[str, str]) -> None:
    topic = new_topic(config, 2)
    commit_offsets(consumer_config(config, topic), topic, {0: 4, 1: 6})
    assert [group_offset(config, topic, topic, partition) for partition in (0, 1)] == [4, 6]


def test_final_commit_gives_up_soon_on_an_unavailable_broker(caplog: pytest.LogCaptureFixture) -> None:
    config = consumer_config({"bootstrap.servers": f"127.0.0.1:{free_port()}"}, "g")
    is_late = deadline(10)
    commit_offsets(config, "t", {0: 1})
    assert not is_late()
    assert "not committed" in caplog.text


def test_second_commit_waits_for_the_answer_to_the_first(config: dict[str, str], topic: str) -> None:
    position = GroupPosition(topic, 0, Outage("test"))
    consumer = Consumer({**consumer_config(config, topic), "on_commit": position.on_commit})
    position.commit(consumer, 3)
    position.commit(consumer, 5)
    assert (position.offset, position.in_flight) == (3, True)
    is_late = deadline(30)
    while position.in_flight and not is_late():
        consumer.poll(0.1)
    position.commit(consumer, 5)
    assert (position.offset, position.in_flight) == (5, True)
    consumer.close()
    assert group_offset(config, topic, topic) == 5


def test_failed_commit_is_sent_again_and_begins_an_outage(config: dict[str, str], topic: str) -> None:
    position = GroupPosition(topic, 0, Outage("test"))
    position.offset, position.sent_at, position.in_flight = 3, time.monotonic(), True
    position.on_commit(KafkaError(KafkaError._TRANSPORT), [])
    assert (position.offset, position.in_flight, position.outage.active) == (-1, False, True)
