"""SIGTERM as an orchestrator sends it: a flow drains and exits 0 in ten seconds, or gives up soon and loses nothing.

The broker goes away and comes back with its log, which only Apache Kafka does.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import KafkaException, Producer

from infra.local.embedded import start_kafka
from infra.local.processes import PATIENCE, spawn, stop, tail
from infra.settings import Settings
from infra.topics import create
from streaming.kafka.source import read_all
from streaming.records import Activity, Event, Tick, decode_log, to_json
from streaming.topics import ACTIVITY, USER_EVENTS, topics
from tests.support.learn_flow import produce
from tests.support.learner import Log
from tests.support.streams import deadline, group_offset

EVENTS: Final = 60_000
START: Final = 90.0  # seconds: an interpreter starts, on a machine that does other things too


class Broker:
    """An Apache Kafka that can go away, and come back as it was."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home, self.running = folder, home, ExitStack()
        self.address = ""

    def start(self) -> None:
        self.address = self.running.enter_context(start_kafka(self.folder, self.home))

    def stop(self) -> None:
        self.running.close()


@pytest.fixture
def broker_away(kafka_home: Path, tmp_path: Path) -> Iterator[Broker]:
    """A broker of this test's own."""
    broker = Broker(tmp_path / "kafka", kafka_home)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def settings(broker_away: Broker, redis_url: str, tmp_path: Path) -> Settings:
    loop = Settings(
        bootstrap_servers=broker_away.address, redis_url=redis_url, data_dir=tmp_path, metrics_port=0,
        event_partitions=1, epoch_seconds=0.5,
    )  # fmt: skip
    create(loop.kafka(), topics(1))
    return loop


class Running:
    """A flow as a process; its log is this run's own."""

    def __init__(self, settings: Settings, flow: str, name: str) -> None:
        self.log = settings.data_dir / f"{name}.log"
        env = {**os.environ, **settings.environment()}
        self.process: subprocess.Popen[bytes] = spawn(
            [sys.executable, "-m", "infra.cli.main", "run", flow], self.log, env
        )

    def until(self, done: Callable[[], bool]) -> None:
        late = deadline(START)
        while not done():
            assert self.process.poll() is None, tail(self.log)
            assert not late(), tail(self.log)
            time.sleep(0.05)

    def end(self) -> int:
        """SIGTERM; after ten seconds SIGKILL, which is -9."""
        stop(self.process, patience=PATIENCE)
        return int(self.process.returncode)


def send(settings: Settings, many: int = EVENTS) -> None:
    producer = Producer({**settings.kafka(), "linger.ms": 20, "compression.type": "lz4"})
    for n in range(many):
        user = f"u{n % 997}"
        producer.produce(USER_EVENTS, to_json(Event(user=user, title=f"t{n % 499}", ts=1_700_000_000_000 + n)), user, 0)
        producer.poll(0)
    assert producer.flush(30) == 0


def committed(settings: Settings, group: str, topic: str) -> int:
    """Negative, too, while the broker is finding out who keeps the group."""
    try:
        return group_offset(settings.kafka(), group, topic)
    except KafkaException:
        return -1


def written(settings: Settings) -> set[int]:
    """Source offsets of the events in the learner's log."""
    records = (decode_log(message.value or b"") for message in read_all(settings.kafka(), ACTIVITY))
    return {new.offset for record in records if isinstance(record, Activity) for new in record.new}


def assert_another_finishes(settings: Settings) -> None:
    """A `features` started anew goes on, and in the end every event is in the log."""
    second = Running(settings, "features", "second")
    try:
        second.until(lambda: committed(settings, "features", USER_EVENTS) == EVENTS)
    finally:
        assert second.end() == 0, tail(second.log)
    assert written(settings) == set(range(EVENTS))


def test_in_the_middle_of_a_heavy_replay_features_drains_and_exits_0_and_goes_on_later(settings: Settings) -> None:
    send(settings)
    first = Running(settings, "features", "first")
    try:
        first.until(lambda: committed(settings, "features", USER_EVENTS) > 0)
    finally:
        assert first.end() == 0, tail(first.log)
    position = committed(settings, "features", USER_EVENTS)
    assert written(settings) == set(range(position))  # drained: what was read is written and committed
    assert_another_finishes(settings)


def test_in_the_middle_of_a_heavy_replay_learn_exits_0(settings: Settings) -> None:
    produce(settings, Log(seed=7, d_text=256).play(1_500).messages)
    learning = Running(settings, "learn", "learn")
    try:
        learning.until(lambda: committed(settings, "learn", ACTIVITY) > 0)
    finally:
        assert learning.end() == 0, tail(learning.log)


def test_while_kafka_is_away_features_gives_up_with_a_sentence_and_loses_nothing(
    settings: Settings, broker_away: Broker
) -> None:
    send(settings)
    first = Running(settings, "features", "first")
    try:
        first.until(lambda: committed(settings, "features", USER_EVENTS) > 0)
        broker_away.stop()
    finally:
        code = first.end()
    assert code == 1, tail(first.log)
    assert "The flow features cannot go on. Kafka took nothing of the last epoch for 3 s" in tail(first.log, 40)
    assert "nothing is lost" in tail(first.log, 40)
    broker_away.start()
    assert_another_finishes(settings)


@pytest.mark.parametrize("flow", ["features", "learn", "publish"])
def test_a_flow_at_rest_stops_well_although_kafka_is_away(settings: Settings, broker_away: Broker, flow: str) -> None:
    send(settings, 10)
    log = Log(seed=7, d_text=256).play(5)
    log.write(Tick(ts=0), later=6_000)  # a checkpoint is due: before its first one the learner commits nothing
    produce(settings, log.messages)
    resting = Running(settings, flow, flow)
    read = USER_EVENTS if flow == "features" else ACTIVITY
    try:
        resting.until(lambda: committed(settings, flow, read) >= 0)
        broker_away.stop()
        time.sleep(1)
    finally:
        code = resting.end()
    assert code in (0, 1), tail(resting.log)
    assert "Traceback" not in tail(resting.log, 40)
