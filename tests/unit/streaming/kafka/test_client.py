"""Cluster metadata of a real broker, and the errors for a missing topic and an unavailable broker."""

import pytest

from infra.local.embedded import free_port
from streaming.errors import BrokerUnavailableError, TopicMissingError
from streaming.kafka.client import topic_partitions
from streaming.kafka.source import KafkaSource, read_all
from tests.support.streams import new_topic


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
