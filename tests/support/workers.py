"""Flows as several processes on a stack of their own: start them, kill one, and see what came of all the events."""

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
from infra.local.processes import spawn, stop, tail
from infra.monitor.lag import READS, lag
from infra.settings import Settings
from streaming import topics as t
from streaming.kafka.client import producing
from streaming.kafka.source import read_all
from streaming.records import Activity, Event, decode_log, to_json
from streaming.state.log_learner import Deduplicator
from tests.support.features import Run

PATIENCE: Final = 120.0  # seconds: interpreters start, on a machine that does other things too
FIELDS: Final = ("recent_titles", "event_count", "last_title")


class Team:
    """`premiere run FLOW --workers N` at work."""

    def __init__(self, settings: Settings, flow: str, workers: int) -> None:
        self.settings, self.flow, self.count = settings, flow, workers
        self.log = settings.data_dir / "logs" / f"{flow}.log"
        command = [sys.executable, "-m", "infra.cli.main", "run", flow, "--workers", str(workers)]
        self.process = spawn(command, self.log, {**os.environ, **settings.environment()})

    def until(self, what: str, owns: Callable[[], bool]) -> None:
        """Wait, within bounds, while the flow lives."""
        deadline = time.monotonic() + PATIENCE
        while not owns():
            assert self.process.poll() is None, (what, tail(self.log, 30))
            assert time.monotonic() < deadline, (what, tail(self.log, 30))
            time.sleep(0.1)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def kill(self, worker: int) -> str:
        """`kill -9` of one worker: the whole flow ends with 1; what it says."""
        os.kill(self.workers()[worker], signal.SIGKILL)
        try:
            assert self.process.wait(PATIENCE) == 1
        except subprocess.TimeoutExpired:
            raise AssertionError(tail(self.log, 30)) from None
        return tail(self.log, 1)

    def end(self) -> None:
        """SIGTERM: it drains and exits 0."""
        stop(self.process)
        assert self.process.returncode == 0, tail(self.log, 30)


@contextmanager
def team(settings: Settings, flow: str, workers: int) -> Iterator[Team]:
    """A flow that ends well where the context does."""
    started = Team(settings, flow, workers)
    try:
        yield started
        if started.process.poll() is None:
            started.end()
    finally:
        stop(started.process)


def send(settings: Settings, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
    """Keys and values, delivered."""
    producer = Producer(producing({**settings.kafka(), "linger.ms": "20"}))
    for name, value in records:
        producer.produce(topic, value, name)
        producer.poll(0)
    assert producer.flush(30) == 0


@contextmanager
def sending(settings: Settings, topic: str, records: Sequence[tuple[str, bytes]], at_once: int = 40) -> Iterator[None]:
    """Records that come a few at a time while something else goes on; all are delivered when the context ends."""

    def send_all() -> None:
        for start in range(0, len(records), at_once):
            send(settings, topic, records[start : start + at_once])
            time.sleep(0.05)

    thread = threading.Thread(target=send_all)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def events(start: int, end: int, users: int = 60) -> list[tuple[str, bytes]]:
    """Events by number: who did what when is a function of it."""
    made = (
        Event(user=f"viewer {(k + k // 7) % users}", title=f"t{k * 7 % 151}", ts=1_700_000_000_000 + 1000 * k)
        for k in range(start, end)
    )
    return [(event.user, to_json(event)) for event in made]


def committed(settings: Settings, flow: str) -> int:
    """The sum of a group's offsets."""
    return sum(row.committed or 0 for row in lag(settings.kafka(), {flow: READS[flow]}))


def waiting(settings: Settings, flow: str) -> int:
    """Messages that a group has not committed."""
    return sum(row.lag for row in lag(settings.kafka(), {flow: READS[flow]}))


def undisturbed(settings: Settings) -> Run:
    """What one process makes of the same topic in one go, in memory."""
    messages = sorted(read_all(settings.kafka(), t.USER_EVENTS), key=lambda message: message[1:3])
    run = Run()
    run_main(run.flow(TestingSource([[message] for message in messages])))
    return run


def offline(settings: Settings) -> Counter[tuple[int, int]]:
    """How often each event lies in the offline log, by partition and offset."""
    folder = offline_folder(settings.data_dir.resolve() / "feast", "user_activity")
    columns = ds.dataset(folder).to_table(columns=["partition", "offset"])
    return Counter(zip(columns["partition"].to_pylist(), columns["offset"].to_pylist(), strict=True))


def activities(settings: Settings) -> list[Activity]:
    """The learner's log, without what is not an activity."""
    records = (decode_log(message.value) for message in read_all(settings.kafka(), t.ACTIVITY) if message.value)
    return [record for record in records if isinstance(record, Activity)]


def learned(log: Sequence[Activity]) -> Counter[tuple[int, int]]:
    """How often each event would be learned, by partition and offset."""
    once = Deduplicator(1_000_000)
    new = ((event.partition, event.offset) for activity in log for event in activity.new)
    return Counter(at for at in new if once.first(*at))


def online(settings: Settings, users: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """What Feast tells of each user."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(settings.data_dir / "feast"))
    asked: list[dict[str, Any]] = [{"user_id": user} for user in users]
    rows = store.get_online_features([f"user_activity:{field}" for field in FIELDS], asked).to_dict()
    return dict(zip(users, zip(*(rows[field] for field in FIELDS), strict=True), strict=True))
