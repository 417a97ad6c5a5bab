"""Logs whose beginning is gone, or that were made anew, on Apache Kafka: no flow waits for what is not there.

The embedded broker does neither retention nor out of range; so these need the real one.
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
from infra.operate.verify import DeriveError, rederive
from infra.run.learn import LogCutError, learn
from infra.run.publish import publish
from infra.run.runner import features, recovery
from infra.settings import Settings
from infra.topics import create
from model import checkpoint
from streaming.flows.learn import GONE
from streaming.kafka.client import PositionLostError, stream_error
from streaming.kafka.source import read_all
from streaming.records import Activity, Event, Tick, decode_log, to_json
from streaming.topics import ACTIVITY, USER_EVENTS, topics
from tests.support.learn_flow import announced, produce, run_until
from tests.support.learner import Log
from tests.support.streams import deadline, group_offset


@pytest.fixture(scope="module")
def apache(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Apache Kafka of these tests' own: the topics have their real names."""
    with start_kafka(tmp_path_factory.mktemp("apache"), kafka_home) as address:
        yield address


@pytest.fixture
def settings(apache: str, redis_url: str, tmp_path: Path) -> Settings:
    """A loop with all topics made anew."""
    loop = Settings(
        bootstrap_servers=apache, redis_url=redis_url, data_dir=tmp_path, checkpoint_seconds=2, keep_checkpoints=50,
        metrics_port=0, event_partitions=1,
    )  # fmt: skip
    anew(loop, [topic.name for topic in topics()])
    return loop


def anew(settings: Settings, names: Sequence[str]) -> None:
    """Delete topics and make them again."""
    admin = AdminClient({**settings.kafka()})
    there = [name for name in admin.list_topics(timeout=10).topics if name in names]
    for future in (admin.delete_topics(there) if there else {}).values():
        future.result()
    late = deadline(60)
    while set(names) & set(admin.list_topics(timeout=10).topics):
        assert not late()
        time.sleep(0.1)
    create(settings.kafka(), [topic for topic in topics(1) if topic.name in names])


def cut(settings: Settings, topic: str, before: int = -1) -> None:
    """What retention does: a log's records before an offset (-1: all) are gone."""
    admin = AdminClient({**settings.kafka()})  # must live until it has answered
    for future in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        future.result()


def played(seed: int, rounds: int) -> Log:
    log = Log(seed=seed, d_text=256).play(rounds)
    log.write(Tick(ts=0), later=3_000)
    return log


def test_a_learner_goes_on_where_retention_has_cut_its_log_and_says_what_is_gone(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    log = played(1, 36)
    half = len(log.messages) // 2
    produce(settings, log.messages[:half])
    run_until(settings, 1)
    before = announced(settings)
    produce(settings, log.messages[half:])
    first = max(one.position for one in before) + 30
    cut(settings, ACTIVITY, first)
    run_until(settings, len(before) + 1)
    after = announced(settings)[len(before) :]
    assert after[0].position > first
    assert after[0].step > before[-1].step
    manifest = checkpoint.read_manifest(before[-1].path)
    assert GONE._value.get() == first - manifest["position"]
    assert f"activity begins at offset {first} now: {first - manifest['position']} records were cut" in caplog.text
    with pytest.raises(DeriveError, match=f"The log begins at offset {first} and version 0 stands at"):
        rederive(settings, len(before), 0, None, print)
    publish(settings, threading.Event())  # makes its caches from what the topics still hold


def test_a_learner_without_a_checkpoint_refuses_a_log_whose_beginning_is_gone(settings: Settings) -> None:
    produce(settings, played(2, 6).messages)
    cut(settings, ACTIVITY, 10)
    with pytest.raises(LogCutError, match=r"begins at offset 10 and there is no checkpoint to go on from: put one"):
        learn(settings, threading.Event())


def test_on_a_topic_made_anew_the_weights_go_on_and_positions_begin_again(settings: Settings) -> None:
    produce(settings, played(3, 30).messages)
    run_until(settings, 1)
    before = announced(settings)
    anew(settings, [ACTIVITY])
    again = played(4, 14)
    produce(settings, again.messages)
    run_until(settings, len(before) + 1)
    after = announced(settings)[-1]
    assert after.step > before[-1].step
    assert after.position <= len(again.messages)
    assert 0 < after.learned <= len(again.events)


def send(settings: Settings, numbers: range) -> None:
    producer = Producer(settings.kafka())
    for n in numbers:
        event = Event(user=f"u{n % 3}", title=f"t{n}", ts=1_700_000_000_000 + n)
        producer.produce(USER_EVENTS, to_json(event), event.user, 0)
    assert producer.flush(20) == 0


def run_features(settings: Settings, done: Callable[[], bool]) -> None:
    stop = threading.Event()

    def watch() -> None:
        late = deadline(120)
        while not (done() or late() or stop.is_set()):
            stop.wait(0.1)
        stop.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run_main(features(settings, stop).dataflow, recovery_config=recovery(settings, "features"))
    finally:
        stop.set()
        watcher.join()


def in_the_log(settings: Settings) -> set[tuple[str, str]]:
    records: list[Any] = [decode_log(m.value) for m in read_all(settings.kafka(), ACTIVITY) if m.value]
    return {(a.user, a.titles[new.index]) for a in records if isinstance(a, Activity) for new in a.new}


def test_features_names_the_remedy_where_its_position_is_gone_and_the_remedy_works(settings: Settings) -> None:
    send(settings, range(20))
    run_features(settings, lambda: len(in_the_log(settings)) == 20)
    assert group_offset(settings.kafka(), "features", USER_EVENTS) <= 20
    send(settings, range(20, 40))
    cut(settings, USER_EVENTS)
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - the engine wraps it
        run_features(settings, lambda: False)
    known = stream_error(raised.value)
    assert isinstance(known, PositionLostError)
    assert "let the flow start anew (remove its recovery folder)" in str(known)
    shutil.rmtree(settings.data_dir / "recovery" / "features")
    send(settings, range(40, 60))
    run_features(settings, lambda: len(in_the_log(settings)) == 40)
    assert {title for _, title in in_the_log(settings)} == {f"t{n}" for n in (*range(20), *range(40, 60))}
