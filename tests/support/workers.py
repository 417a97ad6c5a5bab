"""Runs flows with several worker processes, kills workers and reads the results from all stores."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow.dataset as ds
from bytewax.testing import TestingSource, run_main
from confluent_kafka import Producer

import features.feast_import  # noqa: F401 - Feast comes sooner without torch
from features.store import offline_folder
from infra.local.processes import log_tail, spawn, stop
from infra.monitor.lag import FLOW_TOPICS, read_lag
from infra.settings import Settings
from streaming import topics as t
from streaming.kafka.client import producer_config, topic_name
from streaming.kafka.source import read_all
from streaming.records import Activity, Event, decode_log, to_json
from streaming.state.deduplicator import Deduplicator
from tests.support.feast_client import feast_client
from tests.support.features import FeaturesRun

TIMEOUT_S: Final = 120.0  # for any effect: interpreters start on a busy machine
ACTIVITY_FIELDS: Final = ("recent_titles", "event_count", "last_title")


class FlowProcess:
    """A running `premiere run FLOW --workers N`."""

    def __init__(self, settings: Settings, flow: str, workers: int) -> None:
        self.settings, self.flow, self.count = settings, flow, workers
        self.log = settings.data_dir / "logs" / f"{flow}.log"
        command = [sys.executable, "-P", "-m", "infra.cli.main", "run", flow, "--workers", str(workers)]
        self.process = spawn(command, self.log, {**os.environ, **settings.environment()})

    def wait_until(self, description: str, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` holds; fail if the flow ends or after `TIMEOUT_S`."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, (description, log_tail(self.log, 30))
            assert time.monotonic() < deadline, (description, log_tail(self.log, 30))
            time.sleep(0.1)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def kill(self, worker: int) -> str:
        """`kill -9` one worker, wait until the whole flow exits with 1, and return the last line of its log."""
        os.kill(self.workers()[worker], signal.SIGKILL)
        try:
            assert self.process.wait(TIMEOUT_S) == 1
        except subprocess.TimeoutExpired:
            raise AssertionError(log_tail(self.log, 30)) from None
        return log_tail(self.log, 1)

    def end(self) -> None:
        """Send SIGTERM: the flow drains and exits with 0."""
        stop(self.process)
        assert self.process.returncode == 0, (self.process.returncode, log_tail(self.log, 30))


@contextmanager
def run_flow_process(settings: Settings, flow: str, workers: int) -> Iterator[FlowProcess]:
    """Run a flow during the context; it must exit with 0."""
    running = FlowProcess(settings, flow, workers)
    try:
        yield running
        if running.process.poll() is None:
            running.end()
    finally:
        stop(running.process)


def send_records(settings: Settings, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
    """Send records (key, value) and wait for their delivery."""
    config = settings.kafka_config()
    producer = Producer(producer_config({**config, "linger.ms": "20"}))
    for name, value in records:
        producer.produce(topic_name(config, topic), value, name)
        producer.poll(0)
    assert producer.flush(30) == 0


@contextmanager
def send_in_background(
    settings: Settings, topic: str, records: Sequence[tuple[str, bytes]], batch: int = 40
) -> Iterator[None]:
    """Send records in small batches during the context; all are delivered at its end."""

    def send_all() -> None:
        for start in range(0, len(records), batch):
            send_records(settings, topic, records[start : start + batch])
            time.sleep(0.05)

    thread = threading.Thread(target=send_all)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def numbered_events(start: int, end: int, users: int = 60) -> list[tuple[str, bytes]]:
    """Events whose user, title and time are a function of their number."""
    events = (
        Event(user=f"user {(k + k // 7) % users}", title=f"t{k * 7 % 151}", ts=1_700_000_000_000 + 1000 * k)
        for k in range(start, end)
    )
    return [(event.user, to_json(event)) for event in events]


def committed_records(settings: Settings, flow: str) -> int:
    """The sum of a group's committed offsets."""
    return sum(row.committed_offset or 0 for row in read_lag(settings.kafka_config(), {flow: FLOW_TOPICS[flow]}))


def lag_records(settings: Settings, flow: str) -> int:
    """Records that a group has not committed."""
    return sum(row.records for row in read_lag(settings.kafka_config(), {flow: FLOW_TOPICS[flow]}))


def single_process_run(settings: Settings) -> FeaturesRun:
    """The result of one uninterrupted in-memory run of `features` on the same topic."""
    messages = sorted(read_all(settings.kafka_config(), t.USER_EVENTS), key=lambda message: message[1:3])
    run = FeaturesRun()
    run_main(run.flow(TestingSource([[message] for message in messages])))
    return run


def offline_counts(settings: Settings) -> Counter[tuple[int, int]]:
    """(partition, offset) of each event -> its number of rows in the offline log."""
    folder = offline_folder(settings.data_dir.resolve() / "feast", "user_activity")
    columns = ds.dataset(folder).to_table(columns=["partition", "offset"])
    return Counter(zip(columns["partition"].to_pylist(), columns["offset"].to_pylist(), strict=True))


def read_activities(settings: Settings) -> list[Activity]:
    """The activities in the learner log."""
    records = (decode_log(message.value) for message in read_all(settings.kafka_config(), t.ACTIVITY) if message.value)
    return [record for record in records if isinstance(record, Activity)]


def learned_counts(log: Sequence[Activity]) -> Counter[tuple[int, int]]:
    """(partition, offset) of each event -> how often the learner would learn it."""
    deduplicator = Deduplicator(1_000_000)
    new = ((event.partition, event.offset) for activity in log for event in activity.new)
    return Counter(at for at in new if deduplicator.is_new(*at))


def online_features(settings: Settings, users: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """User -> values of `ACTIVITY_FIELDS` in Feast's online store."""
    store = feast_client(settings)
    entities: list[dict[str, Any]] = [{"user_id": user} for user in users]
    rows = store.get_online_features([f"user_activity:{field}" for field in ACTIVITY_FIELDS], entities).to_dict()
    return dict(zip(users, zip(*(rows[field] for field in ACTIVITY_FIELDS), strict=True), strict=True))
