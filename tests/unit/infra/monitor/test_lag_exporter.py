"""A flow's own gauges show the lag of its group as `premiere status` does, and outlive a broker that is gone."""

import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client import REGISTRY

from infra.monitor import lag_exporter
from infra.monitor.lag import Lag, lag
from infra.topics import create
from streaming.topics import TITLE_LAUNCHES, Topic
from tests.support.kafka import OwnKafka
from tests.support.streams import deadline

pytestmark = pytest.mark.long

GROUP = "titles"


def told(name: str) -> float | None:
    labels = {"group": GROUP, "topic": TITLE_LAUNCHES, "partition": "0"}
    return REGISTRY.get_sample_value(f"premiere_group_lag_{name}", labels)


def read_at() -> float:
    return REGISTRY.get_sample_value("premiere_group_lag_read_timestamp_seconds", {"group": GROUP}) or 0.0


def wait_for(messages: float) -> None:
    late = deadline(30)
    while told("messages") != messages and not late():
        time.sleep(0.02)
    assert told("messages") == messages


def test_the_gauges_are_what_the_status_shows_and_a_broker_that_goes_stops_nothing(
    own_kafka: OwnKafka, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    with own_kafka(tmp_path) as address:
        config = {"bootstrap.servers": address}
        create(config, [Topic(TITLE_LAUNCHES, 1, {})])  # the times are the producer's
        producer = Producer(config)
        for second in range(5):
            producer.produce(TITLE_LAUNCHES, b"{}", timestamp=1_700_000_000_000 + 1000 * second)
        assert producer.flush(10) == 0
        before = time.time()
        thread = lag_exporter.start(config, GROUP, stop, every=0.05)
        wait_for(5)
        (row,) = lag(config, {GROUP: [TITLE_LAUNCHES]})
        assert (told("messages"), told("seconds")) == (row.lag, row.seconds) == (5, 4.0)
        assert before <= read_at() <= time.time()
        consumer = Consumer({**config, "group.id": GROUP, "enable.auto.commit": False})
        consumer.commit(offsets=[TopicPartition(TITLE_LAUNCHES, 0, 3)], asynchronous=False)
        consumer.close()
        wait_for(2)
        assert told("seconds") == 1.0
    late = deadline(60)
    while "The lag is not known" not in caplog.text and not late():
        time.sleep(0.05)
    assert "The lag is not known" in caplog.text
    assert thread.is_alive()
    assert told("messages") == 2  # what was read last, with its time
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def test_seconds_that_are_not_known_are_no_number() -> None:
    lag_exporter.show([Lag("x", "y", 0, 1, 3, 2, None)])
    value = REGISTRY.get_sample_value("premiere_group_lag_seconds", {"group": "x", "topic": "y", "partition": "0"})
    assert value is not None
    assert value != value
