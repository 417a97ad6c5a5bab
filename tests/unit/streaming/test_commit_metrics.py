"""A flow reports its read offsets and how long its epochs and snapshots take."""

from datetime import timedelta
from pathlib import Path

from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main
from prometheus_client import REGISTRY

from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import KafkaSource, Message
from tests.support.streams import flow, produce


def test_read_offset_and_epochs_are_reported(kafka: str, topic: str, tmp_path: Path) -> None:
    config = {"bootstrap.servers": kafka}
    produce(config, topic, range(7))
    init_db_dir(tmp_path, 1)
    messages: list[Message] = []
    source = KafkaSource(config, topic, topic, tail=False)
    run_main(
        flow(source, messages), epoch_interval=timedelta(0), recovery_config=RecoveryConfig(tmp_path, timedelta(0))
    )
    assert len(messages) == 7
    assert REGISTRY.get_sample_value("premiere_read_offset", {"topic": topic, "partition": "0"}) == 7
    assert (REGISTRY.get_sample_value("premiere_epoch_seconds_count", {"topic": topic}) or 0) >= 1


def test_snapshot_of_a_sink_is_timed(kafka: str, topic: str) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("premiere_snapshot_seconds_count", {"sink": "kafka"}) or 0.0

    before, sink = count(), KafkaSink({"bootstrap.servers": kafka}).build_part("sink", "000", None)
    sink.write_batch([[Outgoing(topic, None, b"x")]])
    sink.snapshot()
    sink.close()
    assert count() == before + 1
