"""A flow that is asked to stop while nobody takes its records, or only slowly: what its sink does."""

import threading
from typing import Final

import pytest

from infra.embedded import HOST, free_port
from streaming.broker import UndeliveredError
from streaming.kafka import read_all
from streaming.kafka_sink import KafkaSink, Outgoing

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
