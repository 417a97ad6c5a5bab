"""Flows as processes, as they run for real: they do their work, drain when told to stop, and go on where they were."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Producer
from feast import FeatureStore

from infra.local.processes import spawn, stop, tail
from infra.local.services import services
from infra.monitor.lag import READS, lag
from infra.run.runner import recovery
from infra.settings import Settings
from streaming import topics as t
from streaming.kafka.source import read_all
from streaming.records import Activity, Event, Launch, LogRecord, Title, decode_log, to_json

pytestmark = pytest.mark.long

PATIENCE = 90.0  # seconds: two interpreters start, on a machine that does other things too


@pytest.fixture
def stack(broker: str, tmp_path: Path) -> Iterator[Settings]:
    """A broker and a Redis of this test's own: the topics' names are fixed."""
    with services(Settings(data_dir=tmp_path, bootstrap_servers="", metrics_port=0)) as settings:
        yield settings


def _produce(settings: Settings, events: list[Event], launches: list[Launch]) -> None:
    producer = Producer(settings.kafka())
    for event in events:
        producer.produce(t.USER_EVENTS, to_json(event), event.user)
    for launch in launches:
        producer.produce(t.TITLE_LAUNCHES, to_json(launch), launch.title)
    assert producer.flush(20) == 0


def _log(settings: Settings) -> list[LogRecord]:
    return [decode_log(m.value) for m in read_all(settings.kafka(), t.ACTIVITY) if m.value]


def _learned(log: list[LogRecord]) -> list[tuple[str, str]]:
    """The (user, title) of each new event in the log, in its order."""
    return [(a.user, a.titles[new.index]) for a in log if isinstance(a, Activity) for new in a.new]


def _run(settings: Settings, flows: Mapping[str, int]) -> None:
    """Run flows until each one's group has committed so many records, then ask them to stop: they exit 0."""
    command = [sys.executable, "-m", "infra.cli.main", "run"]
    env = {**os.environ, **settings.environment()}
    logs = {flow: settings.data_dir / f"{flow}.log" for flow in flows}
    children = {flow: spawn([*command, flow], logs[flow], env) for flow in flows}
    try:
        deadline = time.monotonic() + PATIENCE
        while _committed(settings, list(flows)) != flows:
            assert all(child.poll() is None for child in children.values()), [tail(log) for log in logs.values()]
            assert time.monotonic() < deadline, [tail(log) for log in logs.values()]
            time.sleep(0.2)
    finally:
        stop(*children.values())
    assert [child.returncode for child in children.values()] == [0] * len(flows), [tail(log) for log in logs.values()]


def _committed(settings: Settings, flows: list[str]) -> dict[str, int]:
    rows = lag(settings.kafka(), {flow: READS[flow] for flow in flows})
    return {flow: sum(row.committed or 0 for row in rows if row.group == flow) for flow in flows}


def test_what_is_produced_is_served_and_a_restart_repeats_nothing(stack: Settings) -> None:
    first = [Event(user=f"u{n % 5}", title=f"t{n}", ts=1_700_000_000_000 + 1000 * n) for n in range(20)]
    _produce(stack, first, [Launch(title="t1", name="Alien", genres=["Horror"], overview="In space.")])
    _run(stack, {"features": 20, "titles": 1})
    more = [Event(user="u0", title="t99", ts=1_700_000_100_000)]
    _produce(stack, more, [Launch(title="t2", name="Aliens")])
    _run(stack, {"features": 21, "titles": 2})

    log = _log(stack)
    assert sorted(_learned(log)) == sorted((event.user, event.title) for event in first + more)
    assert [title.name for title in log if isinstance(title, Title)] == ["Alien", "Aliens"]
    store = FeatureStore(repo_path=str(stack.data_dir / "feast"))
    wanted = ["user_activity:recent_titles", "user_activity:event_count"]
    row = store.get_online_features(wanted, [{"user_id": "u0"}]).to_dict()
    assert row["recent_titles"] == [["t99", "t15", "t10", "t5", "t0"]]
    assert row["event_count"] == [5]


def test_a_recovery_store_belongs_to_one_log(broker: str, tmp_path: Path) -> None:
    stores = []
    for _ in range(2):
        with services(Settings(data_dir=tmp_path, bootstrap_servers="", metrics_port=0)) as settings:
            recovery(settings, "features")
            recovery(settings, "features")
            stores.append([path.name for path in (tmp_path / "recovery" / "features").iterdir()])
    assert [len(found) for found in stores] == [1, 1]
