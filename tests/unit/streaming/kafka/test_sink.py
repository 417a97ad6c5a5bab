"""A flow that is asked to stop while nobody takes its records, or only slowly: what its sink does."""

import threading
from typing import Final

import pytest
from confluent_kafka import KafkaError

from infra.local.embedded import HOST, free_port
from streaming.kafka import client as broker
from streaming.kafka.client import UndeliveredError
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import read_all

MANY: Final = 10_000  # records that a broker takes longer over than a flow waits for one that takes none


def test_asked_to_stop_while_the_broker_is_away_it_gives_up_soon_and_says_that_nothing_is_lost() -> None:
    stop = threading.Event()
    part = KafkaSink({"bootstrap.servers": f"{HOST}:{free_port()}"}, stop=stop).build_part("sink", "000", None)
    part.write_batch([[Outgoing("nowhere", b"k", b"v")]])
    stop.set()
    with pytest.raises(UndeliveredError, match="nothing is lost: what it wrote is written again after a restart"):
        part.snapshot()
    part.close()


def test_a_full_queue_does_not_keep_it_either() -> None:
    stop = threading.Event()
    config = {"bootstrap.servers": f"{HOST}:{free_port()}", "queue.buffering.max.messages": "5"}
    part = KafkaSink(config, stop=stop).build_part("sink", "000", None)
    stop.set()
    with pytest.raises(UndeliveredError, match="nothing is lost"):
        part.write_batch([[Outgoing("nowhere", b"k", b"v")] * 6])
    part.close()


def test_a_broker_that_is_away_for_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "DEAF", 0.1)
    stop = threading.Event()
    part = KafkaSink({"bootstrap.servers": f"{HOST}:{free_port()}"}, stop=stop).build_part("sink", "000", None)
    part.write_batch([[Outgoing("nowhere", b"k", b"v")]])
    threading.Timer(2, stop.set).start()
    with pytest.raises(UndeliveredError, match="while the flow was to stop"):
        part.snapshot()
    part.close()


def test_a_client_that_does_not_find_the_broker_again_gives_up(
    kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "DEAF", 0.5)
    part = KafkaSink({"bootstrap.servers": kafka}).build_part("sink", "000", None)
    reaching = part.config
    part.config = reaching | {"bootstrap.servers": f"{HOST}:{free_port()}"}
    part.producer = part._client()  # what an outage may leave: a client without a broker
    part.config = reaching
    part.write_batch([[Outgoing(topic, b"k", b"v")]])
    with pytest.raises(UndeliveredError, match="does not find Kafka again, which is back; nothing is lost"):
        part.snapshot()
    part.close()


def test_a_client_that_lived_through_an_outage_is_not_written_with(kafka: str, topic: str) -> None:
    part = KafkaSink({"bootstrap.servers": kafka}).build_part("sink", "000", None)
    client = part.producer
    part.outage.begin(KafkaError(KafkaError._TRANSPORT))
    part.snapshot()
    part.write_batch([[Outgoing(topic, b"k", b"v")]])
    assert part.producer is not client
    client = part.producer
    part.snapshot()
    part.write_batch([[Outgoing(topic, b"k", b"w")]])
    assert part.producer is client
    part.snapshot()
    part.close()
    assert [message.value for message in read_all({"bootstrap.servers": kafka}, topic)] == [b"v", b"w"]


def test_with_nothing_to_write_it_stops_at_once() -> None:
    stop = threading.Event()
    stop.set()
    part = KafkaSink({"bootstrap.servers": f"{HOST}:{free_port()}"}, stop=stop).build_part("sink", "000", None)
    part.snapshot()
    part.close()


def test_a_broker_that_is_slow_is_waited_for(kafka: str, topic: str) -> None:
    stop = threading.Event()
    config = {"bootstrap.servers": kafka, "batch.num.messages": "1", "max.in.flight": "1"}  # a round trip a record
    part = KafkaSink(config, stop=stop).build_part("sink", "000", None)
    part.write_batch([[Outgoing(topic, b"k", b"v")] * MANY])
    stop.set()
    part.snapshot()
    part.close()
    assert sum(1 for _ in read_all({"bootstrap.servers": kafka}, topic)) == MANY
