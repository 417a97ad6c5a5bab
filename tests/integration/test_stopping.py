"""SIGTERM: a flow drains and exits with 0 within ten seconds, or gives up soon without losing data.

The tests stop the broker and start it again with its log, which only Apache Kafka supports.
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
from infra.local.processes import TERMINATION_TIMEOUT_S, log_tail, spawn, stop
from infra.settings import Settings
from infra.topics import create_topics
from streaming.kafka.client import producer_config
from streaming.kafka.source import read_all
from streaming.records import Activity, Event, Tick, decode_log, to_json
from streaming.topics import ACTIVITY, USER_EVENTS, topics
from tests.support.learn_flow import produce
from tests.support.learner import LogBuilder
from tests.support.streams import deadline, group_offset

EVENTS: Final = 60_000
START_TIMEOUT_S: Final = 90.0  # for the start of an interpreter on a busy machine


class RestartableBroker:
    """An Apache Kafka that can be stopped, and started again with its log."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home, self.running = folder, home, ExitStack()
        self.address = ""

    def start(self) -> None:
        self.address = self.running.enter_context(start_kafka(self.folder, self.home))

    def stop(self) -> None:
        self.running.close()


@pytest.fixture
def restartable_broker(kafka_home: Path, tmp_path: Path) -> Iterator[RestartableBroker]:
    """A broker for each test."""
    broker = RestartableBroker(tmp_path / "kafka", kafka_home)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def settings(restartable_broker: RestartableBroker, redis_url: str, tmp_path: Path) -> Settings:
    settings = Settings(
        bootstrap_servers=restartable_broker.address, redis_url=redis_url, data_dir=tmp_path, metrics_port=0,
        event_partitions=1, epoch_seconds=0.5,
    )  # fmt: skip
    create_topics(settings.kafka_config(), topics(1))
    return settings


class FlowProcess:
    """A flow as a process, with a log of its own."""

    def __init__(self, settings: Settings, flow: str, name: str) -> None:
        self.log = settings.data_dir / f"{name}.log"
        env = {**os.environ, **settings.environment()}
        self.process: subprocess.Popen[bytes] = spawn(
            [sys.executable, "-P", "-m", "infra.cli.main", "run", flow], self.log, env
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        is_late = deadline(START_TIMEOUT_S)
        while not condition():
            assert self.process.poll() is None, log_tail(self.log)
            assert not is_late(), log_tail(self.log)
            time.sleep(0.05)

    def terminate(self) -> int:
        """Send SIGTERM, after ten seconds SIGKILL; the exit code, -9 for SIGKILL."""
        stop(self.process, timeout_s=TERMINATION_TIMEOUT_S)
        return int(self.process.returncode)


def send(settings: Settings, count: int = EVENTS) -> None:
    producer = Producer({**producer_config(settings.kafka_config()), "linger.ms": 20})
    for n in range(count):
        user = f"u{n % 997}"
        producer.produce(USER_EVENTS, to_json(Event(user=user, title=f"t{n % 499}", ts=1_700_000_000_000 + n)), user, 0)
        producer.poll(0)
    assert producer.flush(30) == 0


def committed(settings: Settings, group: str, topic: str) -> int:
    """The committed offset; negative if there is none or the broker has not found the group's coordinator yet."""
    try:
        return group_offset(settings.kafka_config(), group, topic)
    except KafkaException:
        return -1


def logged_offsets(settings: Settings) -> set[int]:
    """The source offsets of the events in the learner log."""
    records = (decode_log(message.value or b"") for message in read_all(settings.kafka_config(), ACTIVITY))
    return {new.offset for record in records if isinstance(record, Activity) for new in record.new}


def assert_restart_completes(settings: Settings) -> None:
    """After a restart, `features` continues until every event is in the log."""
    second = FlowProcess(settings, "features", "second")
    try:
        second.wait_until(lambda: committed(settings, "features", USER_EVENTS) == EVENTS)
    finally:
        assert second.terminate() == 0, log_tail(second.log)
    assert logged_offsets(settings) == set(range(EVENTS))


@pytest.mark.extended
def test_features_drains_under_load_and_continues_after_restart(settings: Settings) -> None:
    send(settings)
    first = FlowProcess(settings, "features", "first")
    try:
        first.wait_until(lambda: committed(settings, "features", USER_EVENTS) > 0)
    finally:
        assert first.terminate() == 0, log_tail(first.log)
    position = committed(settings, "features", USER_EVENTS)
    assert logged_offsets(settings) == set(range(position))  # everything that was read is written and committed
    assert_restart_completes(settings)


def test_learn_exits_0_under_load(settings: Settings) -> None:
    produce(settings, LogBuilder(seed=7, d_text=256).add_rounds(1_500).messages)
    process = FlowProcess(settings, "learn", "learn")
    try:
        process.wait_until(lambda: committed(settings, "learn", ACTIVITY) > 0)
    finally:
        assert process.terminate() == 0, log_tail(process.log)


@pytest.mark.extended
def test_features_gives_up_without_broker_and_loses_nothing(
    settings: Settings, restartable_broker: RestartableBroker
) -> None:
    send(settings)
    first = FlowProcess(settings, "features", "first")
    try:
        first.wait_until(lambda: committed(settings, "features", USER_EVENTS) > 0)
        restartable_broker.stop()
    finally:
        code = first.terminate()
    assert code == 1, log_tail(first.log)
    assert "The flow features cannot continue" in log_tail(first.log, 40)
    assert "No data is lost" in log_tail(first.log, 40)
    restartable_broker.start()
    assert_restart_completes(settings)


@pytest.mark.parametrize("flow", ["features", "learn", "publish"])
def test_idle_flow_stops_without_broker(settings: Settings, restartable_broker: RestartableBroker, flow: str) -> None:
    send(settings, 10)
    log = LogBuilder(seed=7, d_text=256).add_rounds(5)
    log.write(Tick(ts=0), later=6_000)  # makes a checkpoint due: the learner commits nothing before its first one
    produce(settings, log.messages)
    idle = FlowProcess(settings, flow, flow)
    topic = USER_EVENTS if flow == "features" else ACTIVITY
    try:
        idle.wait_until(lambda: committed(settings, flow, topic) >= 0)
        restartable_broker.stop()
        time.sleep(1)
    finally:
        code = idle.terminate()
    assert code in (0, 1), log_tail(idle.log)
    assert "Traceback" not in log_tail(idle.log, 40)
