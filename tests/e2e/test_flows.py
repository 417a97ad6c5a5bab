"""Flows as real processes: they process records, drain on SIGTERM and continue where they stopped."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Producer

from infra.local.processes import log_tail, spawn, stop
from infra.local.services import start_services
from infra.monitor.lag import FLOW_TOPICS, read_lag
from infra.settings import Settings
from infra.topics import EMBEDDED_LOGS, log_identity
from streaming import topics as t
from streaming.kafka.client import producer_config
from streaming.kafka.source import read_all
from streaming.records import Activity, Event, Launch, LogRecord, Title, decode_log, to_json
from tests.support.feast_client import feast_client

pytestmark = pytest.mark.long

TIMEOUT_S = 90.0  # for any effect: two interpreters start on a busy machine


@pytest.fixture
def services(broker: str, tmp_path: Path) -> Iterator[Settings]:
    """A broker and a Redis for this test, since topic names are fixed."""
    with start_services(Settings(data_dir=tmp_path, bootstrap_servers="", metrics_port=0)) as settings:
        yield settings


def _produce(settings: Settings, events: list[Event], launches: list[Launch]) -> None:
    producer = Producer(producer_config(settings.kafka_config()))
    for event in events:
        producer.produce(t.USER_EVENTS, to_json(event), event.user)
    for launch in launches:
        producer.produce(t.TITLE_LAUNCHES, to_json(launch), launch.title)
    assert producer.flush(20) == 0


def _log(settings: Settings) -> list[LogRecord]:
    return [decode_log(m.value) for m in read_all(settings.kafka_config(), t.ACTIVITY) if m.value]


def _learned(log: list[LogRecord]) -> list[tuple[str, str]]:
    """(user, title) of each new event in the log, in log order."""
    return [(a.user, a.titles[new.index]) for a in log if isinstance(a, Activity) for new in a.new]


def _run(settings: Settings, flows: Mapping[str, int]) -> None:
    """Run flows until each group has committed this number of records, then stop them; they must exit with 0."""
    command = [sys.executable, "-P", "-m", "infra.cli.main", "run"]
    env = {**os.environ, **settings.environment()}
    logs = {flow: settings.data_dir / f"{flow}.log" for flow in flows}
    children = {flow: spawn([*command, flow], logs[flow], env) for flow in flows}
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while _committed(settings, list(flows)) != flows:
            assert all(child.poll() is None for child in children.values()), [log_tail(log) for log in logs.values()]
            assert time.monotonic() < deadline, [log_tail(log) for log in logs.values()]
            time.sleep(0.2)
    finally:
        stop(*children.values())
    assert [child.returncode for child in children.values()] == [0] * len(flows), [
        log_tail(log) for log in logs.values()
    ]


def _committed(settings: Settings, flows: list[str]) -> dict[str, int]:
    rows = read_lag(settings.kafka_config(), {flow: FLOW_TOPICS[flow] for flow in flows})
    return {flow: sum(row.committed_offset or 0 for row in rows if row.group == flow) for flow in flows}


def test_restarted_flows_process_each_record_once(services: Settings) -> None:
    first = [Event(user=f"u{n % 5}", title=f"t{n}", ts=1_700_000_000_000 + 1000 * n) for n in range(20)]
    _produce(services, first, [Launch(title="t1", name="Alien", genres=["Horror"], overview="In space.")])
    _run(services, {"features": 20, "titles": 1})
    more = [Event(user="u0", title="t99", ts=1_700_000_100_000)]
    _produce(services, more, [Launch(title="t2", name="Aliens")])
    _run(services, {"features": 21, "titles": 2})

    log, messages = _log(services), list(read_all(services.kafka_config(), t.ACTIVITY))
    has_markers = messages[-1].offset >= len(messages)  # of transactions
    assert has_markers != log_identity(services.kafka_config(), [t.ACTIVITY]).startswith(EMBEDDED_LOGS)
    assert sorted(_learned(log)) == sorted((event.user, event.title) for event in first + more)
    assert [title.name for title in log if isinstance(title, Title)] == ["Alien", "Aliens"]
    store = feast_client(services)
    wanted = ["user_activity:recent_titles", "user_activity:event_count"]
    row = store.get_online_features(wanted, [{"user_id": "u0"}]).to_dict()
    assert row["recent_titles"] == [["t99", "t15", "t10", "t5", "t0"]]
    assert row["event_count"] == [5]
