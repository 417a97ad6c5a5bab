"""Cluster metadata of a real broker, and the errors for a missing topic and an unavailable broker."""

import threading

import pytest
from bytewax.testing import run_main

from infra.local.embedded import free_port
from infra.topics import create_topics, delete_topics, log_identity
from streaming.errors import BrokerUnavailableError, TopicMissingError
from streaming.kafka.client import PREFIX_KEY, discard, topic_metadata, topic_partitions
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import KafkaSource, Message, read_all
from streaming.topics import Topic
from tests.support.streams import flow, group_offset, new_topic


@pytest.fixture
def config(kafka: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka}


def test_partitions_of_a_topic(config: dict[str, str]) -> None:
    assert topic_partitions(config, new_topic(config, 3)) == [0, 1, 2]


def test_missing_topic_is_an_error_and_is_not_created(config: dict[str, str]) -> None:
    for _ in range(2):
        with pytest.raises(TopicMissingError, match=r"no topic nowhere .*premiere topics --create"):
            KafkaSource(config, "nowhere", "g").list_parts()
    with pytest.raises(TopicMissingError):
        next(read_all(config, "nowhere"))


def test_unavailable_broker_is_an_error_with_its_address() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnavailableError, match=address):
        topic_partitions({"bootstrap.servers": address}, "t", timeout_s=0.5)


def test_deployments_with_other_prefixes_share_a_broker(config: dict[str, str]) -> None:
    deployments = [config, {**config, PREFIX_KEY: "staging"}, {**config, PREFIX_KEY: "staging_2"}]
    topic = new_topic(deployments[0], 1)
    for deployment in deployments[1:]:
        assert topic not in topic_metadata(deployment)
        create_topics(deployment, [Topic(topic, 1, {})])
    for number, deployment in enumerate(deployments):
        sink = KafkaSink(deployment).build_part("sink", "000", None)
        sink.write_batch([[Outgoing(topic, b"k", str(number).encode())] * (number + 1)])
        sink.snapshot()
        sink.close()
    for number, deployment in enumerate(deployments):
        read: list[Message] = []
        source = KafkaSource(deployment, topic, topic, tail=False)
        run_main(flow(source, read))
        source.commit()
        assert [(message.topic, message.value) for message in read] == [(topic, b"%d" % number)] * (number + 1)
        assert [message.value for message in read_all(deployment, topic)] == [b"%d" % number] * (number + 1)
        name = f"{deployment[PREFIX_KEY]}.{topic}" if number else topic
        assert group_offset(config, name, name) == number + 1
    assert len({log_identity(deployment, [topic]) for deployment in deployments}) == 3
    delete_topics(deployments[1], [topic])
    assert [topic in topic_metadata(deployment) for deployment in deployments] == [True, False, True]


def test_client_whose_destruction_hangs_is_discarded_at_once() -> None:
    released, destroyed = threading.Event(), threading.Event()

    class Hanging:
        def __del__(self) -> None:
            released.wait(30)
            destroyed.set()

    clients = [Hanging()]
    discard(clients)
    assert clients == []
    assert not destroyed.is_set()
    released.set()
    assert destroyed.wait(30)
