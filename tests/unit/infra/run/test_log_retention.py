"""The share of the learner log's retention that the checkpoints need, on a real broker with real checkpoints."""

import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY

from infra.run.log_retention import RETENTION_USED, retention_ms, retention_used, start_retention_watch
from model import checkpoint
from streaming.state.expiry import DAY_MS
from streaming.topics import ACTIVITY
from tests.support.streams import deadline

NOW = round(time.time() * 1000)  # the broker deletes old records


def write_log(config: dict[str, str], *days_ago: float) -> None:
    producer = Producer(config)
    for days in days_ago:
        producer.produce(ACTIVITY, b"?", b"k", 0, timestamp=round(NOW - days * DAY_MS))
    assert producer.flush(20) == 0


def save(folder: Path, step: int, position: int, log_id: str = "log") -> None:
    manifest = {"step": step, "position": position, "log": log_id, "created": NOW}
    checkpoint.save(str(folder / f"{step:012d}"), {"part": {"number": step}}, manifest)


def test_oldest_checkpoint_of_the_log_determines_the_share(new_kafka: dict[str, str], tmp_path: Path) -> None:
    write_log(new_kafka, 6.3, 3.5, 1.4, 0.7)
    folder, used = tmp_path / "checkpoints", []
    save(folder, 9, 0, log_id="another log")
    for step, position in ((8, 4), (7, 3), (6, 2), (5, 1)):
        used.append(retention_used(new_kafka, str(folder), "log", NOW))
        save(folder, step, position)
    used.append(retention_used(new_kafka, str(folder), "log", NOW))
    assert retention_ms(new_kafka) == 7 * DAY_MS
    assert used == pytest.approx([0, 0, 0.1, 0.2, 0.5])


def test_share_is_at_least_one_if_needed_records_are_deleted(
    new_kafka: dict[str, str], tmp_path: Path, broker: str
) -> None:
    if broker != "apache":
        pytest.skip("the embedded broker deletes no records")
    write_log(new_kafka, 3.5, 1.4, 0.7)
    admin = AdminClient({**new_kafka})  # kept: the futures of a deleted client never end
    for future in admin.delete_records([TopicPartition(ACTIVITY, 0, 2)]).values():
        future.result(30)
    save(tmp_path / "checkpoints", 5, 1)
    assert retention_used(new_kafka, str(tmp_path / "checkpoints"), "log", NOW) == 1
    save(tmp_path / "checkpoints", 5, 2)
    assert retention_used(new_kafka, str(tmp_path / "checkpoints"), "log", NOW) == pytest.approx(0.1)


def test_metric_is_updated_while_the_flow_runs(new_kafka: dict[str, str], tmp_path: Path) -> None:
    write_log(new_kafka, 3.5)
    save(tmp_path / "checkpoints", 5, 0)
    stop, late = threading.Event(), deadline(30)
    RETENTION_USED.set(0)  # a flow of an earlier test in this process has set it
    start_retention_watch(new_kafka, str(tmp_path / "checkpoints"), "log", stop)
    while not (REGISTRY.get_sample_value("premiere_log_retention_used_ratio") or late()):
        time.sleep(0.02)
    stop.set()
    assert REGISTRY.get_sample_value("premiere_log_retention_used_ratio") == pytest.approx(0.5, abs=0.01)
