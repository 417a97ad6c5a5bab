"""The lag gauges of a flow equal `premiere status` and survive an unreachable broker."""

import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from prometheus_client import REGISTRY

from infra.monitor import lag_exporter
from infra.monitor.lag import PartitionLag, read_lag
from infra.topics import create_topics
from streaming.topics import TITLE_LAUNCHES, Topic
from tests.support.kafka import StartBroker, commit_offset
from tests.support.streams import deadline

pytestmark = pytest.mark.long

GROUP = "titles"


def exported(name: str) -> float | None:
    labels = {"group": GROUP, "topic": TITLE_LAUNCHES, "partition": "0"}
    return REGISTRY.get_sample_value(f"premiere_consumer_lag_{name}", labels)


def read_at() -> float:
    return REGISTRY.get_sample_value("premiere_consumer_lag_read_timestamp_seconds", {"group": GROUP}) or 0.0


def wait_for(records: float) -> None:
    late = deadline(30)
    while exported("records") != records and not late():
        time.sleep(0.02)
    assert exported("records") == records


def test_lag_exporter_keeps_last_values_without_broker(
    start_broker: StartBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    with start_broker(tmp_path) as address:
        config = {"bootstrap.servers": address}
        create_topics(config, [Topic(TITLE_LAUNCHES, 1, {})])  # this topic keeps the producer's timestamps
        producer = Producer(config)
        for second in range(5):
            producer.produce(TITLE_LAUNCHES, b"{}", timestamp=1_700_000_000_000 + 1000 * second)
        assert producer.flush(10) == 0
        before = time.time()
        thread = lag_exporter.start_lag_exporter(config, GROUP, stop, interval_s=0.05)
        wait_for(5)
        (row,) = read_lag(config, {GROUP: [TITLE_LAUNCHES]})
        assert (exported("records"), exported("seconds")) == (row.records, row.seconds) == (5, 4.0)
        assert before <= read_at() <= time.time()
        commit_offset(address, GROUP, TITLE_LAUNCHES, 3)
        wait_for(2)
        assert exported("seconds") == 1.0
    late = deadline(60)
    while "Cannot read the consumer lag" not in caplog.text and not late():
        time.sleep(0.05)
    assert "Cannot read the consumer lag" in caplog.text
    assert thread.is_alive()
    assert exported("records") == 2  # the last value
    stop.set()
    thread.join(60)
    assert not thread.is_alive()


def test_unknown_lag_in_seconds_is_nan() -> None:
    lag_exporter.set_gauges([PartitionLag("x", "y", 0, 1, 3, 2, None)])
    value = REGISTRY.get_sample_value("premiere_consumer_lag_seconds", {"group": "x", "topic": "y", "partition": "0"})
    assert value is not None
    assert value != value
