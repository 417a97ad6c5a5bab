"""The sink: what it writes, and what it does while the broker is unavailable, slow, or asked to stop."""

import queue
import threading
import time
from typing import Final

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from confluent_kafka import KafkaError, Producer

from infra.local.embedded import free_port
from streaming.errors import DeliveryError
from streaming.kafka import reconnect
from streaming.kafka.client import DISCARD_THREAD
from streaming.kafka.sink import STOP_GRACE_S, KafkaSink, Outgoing
from streaming.kafka.source import KafkaSource, read_all
from tests.support.streams import new_topic, numbers, produce

SLOW_RECORDS: Final = 10_000  # writing them takes longer than the grace of a flow that is asked to stop


@pytest.fixture
def config(kafka: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka}


def unavailable() -> dict[str, str]:
    return {"bootstrap.servers": f"127.0.0.1:{free_port()}"}


def write(config: dict[str, str], *records: Outgoing) -> None:
    part = KafkaSink(config).build_part("sink", "000", None)
    part.write_batch([list(records)])
    part.snapshot()
    part.close()


def test_records_are_in_the_topic_after_a_snapshot(config: dict[str, str], topic: str) -> None:
    write(config, Outgoing(topic, b"k", b"v", [("why", b"because")]), Outgoing(topic, None, b"w"))
    first, second = read_all(config, topic)
    assert (first.key, first.value, list(first.headers)) == (b"k", b"v", [("why", b"because")])
    assert (second.key, second.value, list(second.headers)) == (None, b"w", [])


def test_partitioner_is_kafkas_default(config: dict[str, str]) -> None:
    topic = new_topic(config, 8)
    # Keys and murmur2 hashes of Kafka's own tests.
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    write(config, *(Outgoing(topic, key, b"") for key in hashes), Outgoing(topic, b"21", b"", partition=7))
    written = [(message.key, message.partition) for message in read_all(config, topic)]
    expected = [(key, (murmur2 & 0x7FFFFFFF) % 8) for key, murmur2 in hashes.items()]
    assert sorted(map(str, written)) == sorted(map(str, [*expected, (b"21", 7)]))


def test_sink_delivers_before_its_epoch_ends(config: dict[str, str], topic: str) -> None:
    origin = new_topic(config, 1)
    produce(config, origin, range(100))
    dataflow = Dataflow("copy")
    polls = op.input("polls", dataflow, KafkaSource(config, origin, "g", tail=False, batch=9))
    records = op.map("records", polls, lambda poll: ("0", [Outgoing(topic, m.key, m.value or b"") for m in poll]))
    op.output("copies", records, KafkaSink(config))
    run_main(dataflow)
    assert numbers(read_all(config, topic)) == list(range(100))


def test_undelivered_record_raises() -> None:
    with pytest.raises(DeliveryError, match="record for t was not delivered"):
        write({**unavailable(), "delivery.timeout.ms": "300"}, Outgoing("t", None, b"v"))


def test_record_too_large_for_the_client_raises(config: dict[str, str], topic: str) -> None:
    with pytest.raises(DeliveryError, match=f"record for {topic} was refused"):
        write(config, Outgoing(topic, None, bytes(2_000_000)))


def test_stop_during_an_outage_gives_up_after_the_grace() -> None:
    stop = threading.Event()
    part = KafkaSink(unavailable(), stop=stop).build_part("sink", "000", None)
    part.write_batch([[Outgoing("nowhere", b"k", b"v")]])
    stop.set()
    started = time.monotonic()
    with pytest.raises(DeliveryError, match="asked to stop"):
        part.snapshot()
    assert STOP_GRACE_S <= time.monotonic() - started < STOP_GRACE_S + 10
    assert part.progress_at > 0.0
    part.close()


def test_stop_with_a_full_queue_gives_up() -> None:
    stop = threading.Event()
    config = {**unavailable(), "queue.buffering.max.messages": "5"}
    part = KafkaSink(config, stop=stop).build_part("sink", "000", None)
    stop.set()
    with pytest.raises(DeliveryError, match="asked to stop"):
        part.write_batch([[Outgoing("nowhere", b"k", b"v")] * 6])
    part.close()


def test_sink_waits_for_an_unavailable_broker_until_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "STALE_CLIENT_S", 0.1)
    stop = threading.Event()
    part = KafkaSink(unavailable(), stop=stop).build_part("sink", "000", None)
    part.write_batch([[Outgoing("nowhere", b"k", b"v")]])
    threading.Timer(2, stop.set).start()
    with pytest.raises(DeliveryError, match="asked to stop"):
        part.snapshot()
    part.close()


def test_stale_producer_gives_up(config: dict[str, str], topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "STALE_CLIENT_S", 0.5)
    part = KafkaSink(config).build_part("sink", "000", None)
    available = part.config
    part.config = available | unavailable()
    part.connection.current = part._new_client(part.outage.begin)  # like a stale client: it does not know the broker
    part.config = available
    part.write_batch([[Outgoing(topic, b"k", b"v")]])
    with pytest.raises(DeliveryError, match="stale"):
        part.snapshot()
    part.close()


def test_producer_is_replaced_after_an_outage(
    config: dict[str, str], topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    destroyed_by = queue.SimpleQueue[str]()

    class OldProducer(Producer):
        def __del__(self) -> None:
            destroyed_by.put(threading.current_thread().name)

    with monkeypatch.context() as patch:
        patch.setattr("streaming.kafka.sink.Producer", OldProducer)
        part = KafkaSink(config).build_part("sink", "000", None)
    part.outage.begin(KafkaError(KafkaError._TRANSPORT))
    part.snapshot()
    part.write_batch([[Outgoing(topic, b"k", b"v")]])
    assert destroyed_by.get(timeout=30) == DISCARD_THREAD  # because it may block
    producer = part.producer
    part.snapshot()
    part.write_batch([[Outgoing(topic, b"k", b"w")]])
    assert part.producer is producer
    part.snapshot()
    part.close()
    assert [message.value for message in read_all(config, topic)] == [b"v", b"w"]


def test_snapshot_of_an_empty_sink_does_not_wait_for_the_broker() -> None:
    stop = threading.Event()
    stop.set()
    part = KafkaSink(unavailable(), stop=stop).build_part("sink", "000", None)
    part.snapshot()
    # Each wait for a delivery sets both times: see test_stop_during_an_outage_gives_up_after_the_grace.
    assert (part.progress_at, part.stop_seen_at) == (0.0, 0.0)
    part.close()


def test_sink_that_is_asked_to_stop_waits_for_a_slow_broker(config: dict[str, str], topic: str) -> None:
    stop = threading.Event()
    slow = {**config, "batch.num.messages": "1", "max.in.flight": "1"}  # one round trip per record
    part = KafkaSink(slow, stop=stop).build_part("sink", "000", None)
    part.write_batch([[Outgoing(topic, b"k", b"v")] * SLOW_RECORDS])
    stop.set()
    part.snapshot()
    part.close()
    assert sum(1 for _ in read_all(config, topic)) == SLOW_RECORDS
