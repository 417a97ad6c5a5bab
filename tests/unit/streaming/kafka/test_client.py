"""The sink, reading a topic whole, and the errors with names: on a real broker, or on none."""

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.testing import run_main

from infra.local.embedded import free_port
from streaming.kafka.client import BrokerSilentError, TopicMissingError, UndeliveredError, partitions, stream_error
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import KafkaSource, read_all
from tests.support.streams import flow, new_topic, numbers, produce


@pytest.fixture
def config(kafka: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka}


def test_a_missing_topic_is_an_error_that_names_it_and_makes_none(config: dict[str, str]) -> None:
    for _ in range(2):
        with pytest.raises(TopicMissingError, match=r"no topic nowhere .*`premiere topics`"):
            KafkaSource(config, "nowhere", "g").list_parts()
    with pytest.raises(TopicMissingError):
        next(read_all(config, "nowhere"))


def test_a_silent_broker_is_an_error_that_names_it() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerSilentError, match=f"No Kafka answers at {address}"):
        partitions({"bootstrap.servers": address}, "t", timeout=0.5)


def test_the_engines_exception_leads_to_the_sentence_for_the_user(config: dict[str, str]) -> None:
    with pytest.raises(BytewaxRuntimeError) as caught:
        run_main(flow(KafkaSource(config, "nowhere", "g"), []))
    assert isinstance(stream_error(caught.value), TopicMissingError)
    assert stream_error(ValueError("something else")) is None


def sent(config: dict[str, str], *records: Outgoing) -> None:
    part = KafkaSink(config).build_part("sink", "000", None)
    part.write_batch([list(records)])
    part.snapshot()
    part.close()


def test_what_the_sink_flushed_is_in_the_topic(config: dict[str, str], topic: str) -> None:
    sent(config, Outgoing(topic, b"k", b"v", [("why", b"because")]), Outgoing(topic, None, b"w"))
    first, second = read_all(config, topic)
    assert (first.key, first.value, list(first.headers)) == (b"k", b"v", [("why", b"because")])
    assert (second.key, second.value, list(second.headers)) == (None, b"w", [])


def test_keys_go_where_kafkas_own_partitioner_puts_them(config: dict[str, str]) -> None:
    topic = new_topic(config, 8)
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
    }  # murmur2, Kafka's tests
    sent(config, *(Outgoing(topic, key, b"") for key in known), Outgoing(topic, b"21", b"", partition=7))
    where = [(m.key, m.partition) for m in read_all(config, topic)]
    expected = [(key, (murmur & 0x7FFFFFFF) % 8) for key, murmur in known.items()]
    assert sorted(map(str, where)) == sorted(map(str, [*expected, (b"21", 7)]))


def test_a_sink_in_a_dataflow_delivers_before_its_epoch_ends(config: dict[str, str], topic: str) -> None:
    origin = new_topic(config, 1)
    produce(config, origin, range(100))
    dataflow = Dataflow("copy")
    polls = op.input("polls", dataflow, KafkaSource(config, origin, "g", tail=False, batch=9))
    records = op.map("records", polls, lambda poll: ("0", [Outgoing(topic, m.key, m.value or b"") for m in poll]))
    op.output("copies", records, KafkaSink(config))
    run_main(dataflow)
    assert numbers(read_all(config, topic)) == list(range(100))


def test_what_no_broker_takes_raises() -> None:
    config = {"bootstrap.servers": f"127.0.0.1:{free_port()}", "delivery.timeout.ms": "300"}
    with pytest.raises(UndeliveredError, match=r"A record for t was not delivered: .*written again"):
        sent(config, Outgoing("t", None, b"v"))


def test_a_record_too_large_for_the_client_raises(config: dict[str, str], topic: str) -> None:
    with pytest.raises(UndeliveredError, match=f"A record for {topic} was refused"):
        sent(config, Outgoing(topic, None, bytes(2_000_000)))


def test_read_all_ends_at_the_true_end_of_every_partition(config: dict[str, str]) -> None:
    topic = new_topic(config, 3)
    assert list(read_all(config, topic)) == []
    produce(config, topic, range(5), 1)
    produce(config, topic, range(5, 3000), 1)
    produce(config, topic, range(3000, 3100), 2)
    messages = list(read_all(config, topic))
    assert numbers(m for m in messages if m.partition == 1) == list(range(3000))
    assert numbers(m for m in messages if m.partition == 2) == list(range(3000, 3100))
