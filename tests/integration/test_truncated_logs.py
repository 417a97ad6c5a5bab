"""Truncated and recreated logs on Apache Kafka: no flow waits for an offset that does not exist.

The embedded broker has neither retention nor out-of-range errors, so these tests need Apache Kafka.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from bytewax.testing import run_main
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.local.embedded import start_kafka
from infra.operate.verify import VerifyError, verify
from infra.run.learn import LogTruncatedError, learn
from infra.run.publish import publish
from infra.run.runner import features, recovery_store
from infra.settings import Settings
from infra.topics import create_topics, log_identity
from model import checkpoint
from streaming.errors import OffsetOutOfRangeError, stream_error
from streaming.flows.learner_metrics import LOST_RECORDS
from streaming.kafka.client import producer_config
from streaming.kafka.source import read_all
from streaming.records import Activity, Event, Tick, decode_log, to_json
from streaming.state.deduplicator import Deduplicator
from streaming.topics import ACTIVITY, USER_EVENTS, topics
from tests.support.learn_flow import announced_versions, produce, run_until_announced
from tests.support.learner import LogBuilder
from tests.support.streams import deadline, group_offset


@pytest.fixture(scope="module")
def apache(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Apache Kafka that only these tests use, because the topics have their real names."""
    with start_kafka(tmp_path_factory.mktemp("apache"), kafka_home) as address:
        yield address


@pytest.fixture
def settings(apache: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings with newly created topics."""
    settings = Settings(
        bootstrap_servers=apache, redis_url=redis_url, data_dir=tmp_path, checkpoint_seconds=2, keep_checkpoints=50,
        metrics_port=0, event_partitions=1,
    )  # fmt: skip
    recreate(settings, [topic.name for topic in topics()])
    return settings


def recreate(settings: Settings, names: Sequence[str]) -> None:
    """Delete topics and create them again."""
    admin = AdminClient({**settings.kafka_config()})
    existing = [name for name in admin.list_topics(timeout=10).topics if name in names]
    for future in (admin.delete_topics(existing) if existing else {}).values():
        future.result()
    is_late = deadline(60)
    while set(names) & set(admin.list_topics(timeout=10).topics):
        assert not is_late()
        time.sleep(0.1)
    create_topics(settings.kafka_config(), [topic for topic in topics(1) if topic.name in names])


def truncate(settings: Settings, topic: str, before: int = -1) -> None:
    """Delete a log's records before an offset, like retention does; -1 deletes all."""
    admin = AdminClient({**settings.kafka_config()})  # must not be deleted before it has answered
    for future in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        future.result()


def learner_log(seed: int, rounds: int) -> LogBuilder:
    log = LogBuilder(seed=seed, d_text=256).add_rounds(rounds)
    log.write(Tick(ts=0), later=3_000)
    return log


def test_learner_continues_after_retention_and_counts_the_lost_records(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    log = learner_log(1, 36)
    half = len(log.messages) // 2
    produce(settings, log.messages[:half])
    run_until_announced(settings, 1)
    before = announced_versions(settings)
    produce(settings, log.messages[half:])
    first = max(version.position for version in before) + 30
    truncate(settings, ACTIVITY, first)
    lost_before = LOST_RECORDS._value.get()
    run_until_announced(settings, len(before) + 1)
    after = announced_versions(settings)[len(before) :]
    assert after[0].position > first
    assert after[0].step > before[-1].step
    manifest = checkpoint.read_manifest(before[-1].path)
    lost = first - manifest["position"]
    assert LOST_RECORDS._value.get() - lost_before == lost
    assert f"activity starts at offset {first}: retention deleted {lost} records" in caplog.text
    with pytest.raises(VerifyError, match=f"log begins at offset {first}"):
        verify(settings, len(before), 0, None, print)
    publish(settings, threading.Event())  # restores its caches from the remaining records


def test_learner_without_a_checkpoint_refuses_a_truncated_log(settings: Settings) -> None:
    produce(settings, learner_log(2, 6).messages)
    truncate(settings, ACTIVITY, 10)
    with pytest.raises(LogTruncatedError, match=r"starts at offset 10, and there is no checkpoint"):
        learn(settings, threading.Event())


def test_recreated_topic_keeps_the_weights_and_resets_the_position(settings: Settings) -> None:
    produce(settings, learner_log(3, 30).messages)
    run_until_announced(settings, 1)
    before = announced_versions(settings)
    recreate(settings, [ACTIVITY])
    new_log = learner_log(4, 14)
    produce(settings, new_log.messages)
    run_until_announced(settings, len(before) + 1)
    after = announced_versions(settings)[-1]
    assert after.step > before[-1].step
    assert after.position <= len(new_log.messages)
    assert 0 < after.learned <= len(new_log.events)


def send(settings: Settings, numbers: range) -> None:
    producer = Producer(producer_config(settings.kafka_config()))
    for n in numbers:
        event = Event(user=f"u{n % 3}", title=f"t{n}", ts=1_700_000_000_000 + n)
        producer.produce(USER_EVENTS, to_json(event), event.user, 0)
    assert producer.flush(20) == 0


def run_features(settings: Settings, done: Callable[[], bool]) -> None:
    stop = threading.Event()

    def stop_when_done() -> None:
        is_late = deadline(120)
        while not (done() or is_late() or stop.is_set()):
            stop.wait(0.1)
        stop.set()

    watcher = threading.Thread(target=stop_when_done)
    watcher.start()
    try:
        run_main(features(settings, stop).dataflow, recovery_config=recovery_store(settings, "features"))
    finally:
        stop.set()
        watcher.join()


def logged_events(settings: Settings) -> set[tuple[str, str]]:
    records: list[Any] = [decode_log(m.value) for m in read_all(settings.kafka_config(), ACTIVITY) if m.value]
    return {(a.user, a.titles[new.index]) for a in records if isinstance(a, Activity) for new in a.new}


def test_features_restarts_after_its_offset_was_deleted(settings: Settings) -> None:
    send(settings, range(20))
    run_features(settings, lambda: len(logged_events(settings)) == 20)
    assert group_offset(settings.kafka_config(), "features", USER_EVENTS) <= 20
    send(settings, range(20, 40))
    truncate(settings, USER_EVENTS)
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - the engine wraps it
        run_features(settings, lambda: False)
    error = stream_error(raised.value)
    assert isinstance(error, OffsetOutOfRangeError)
    assert "recovery folder" in str(error)
    shutil.rmtree(settings.data_dir / "recovery" / "features")
    send(settings, range(40, 60))
    run_features(settings, lambda: len(logged_events(settings)) == 40)
    assert {title for _, title in logged_events(settings)} == {f"t{n}" for n in (*range(20), *range(40, 60))}


def test_events_of_recreated_user_events_are_learned(settings: Settings) -> None:
    send(settings, range(20))
    run_features(settings, lambda: len(logged_events(settings)) == 20)
    recreate(settings, [USER_EVENTS])
    send(settings, range(20, 35))
    run_features(settings, lambda: len(logged_events(settings)) == 35)
    records: list[Any] = [decode_log(m.value) for m in read_all(settings.kafka_config(), ACTIVITY) if m.value]
    activities, deduplicator = [one for one in records if isinstance(one, Activity)], Deduplicator(65_536)
    new = [(event.partition, event.offset, one.source) for one in activities for event in one.new]
    assert sum(deduplicator.is_new(*position) for position in new) == 35
    assert activities[-1].source == log_identity(settings.kafka_config(), [USER_EVENTS])
