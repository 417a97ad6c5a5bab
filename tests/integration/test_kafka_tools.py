"""Kafka's own tools, on Apache Kafka: what its producer sends can be used, and the lag that it shows is ours."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Producer

from infra.errors import SettingsError
from infra.local.embedded import start_kafka, start_redis
from infra.local.processes import spawn, stop, tail
from infra.monitor.lag import Lag
from infra.monitor.metrics_server import free_base
from infra.monitor.scrape import Scrape, read
from infra.monitor.status import as_json, status
from infra.operate.reset import reset
from infra.settings import Settings
from infra.topics import create
from streaming.flows.features import sort
from streaming.kafka.source import read_all
from streaming.records import Event, to_json
from streaming.topics import USER_EVENTS, topics
from tests.support.docs import CONTRACTS, LOCAL_KAFKA, _block

PATIENCE: Final = 90.0  # seconds


@pytest.fixture(scope="module")
def settings(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Apache Kafka with the project's topics, and a Redis."""
    folder = tmp_path_factory.mktemp("stack")
    with start_kafka(folder / "kafka", kafka_home) as address, start_redis(folder / "redis") as url:
        base = free_base(Settings(metrics_port=24_600))
        made = Settings(bootstrap_servers=address, redis_url=url, metrics_port=base, data_dir=folder)
        create(made.kafka(), topics(made.event_partitions))
        yield made


def _tool(home: Path, name: str, *words: str, given: str = "") -> str:
    done = subprocess.run(
        [str(home / "bin" / name), *words], input=given, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _events(settings: Settings, count: int, start: int = 0) -> None:
    producer = Producer({**settings.kafka(), "partitioner": "murmur2_random"})
    for n in range(start, start + count):
        event = Event(user=f"u{n}", title="t", ts=1_700_000_000_000 + n)
        producer.produce(USER_EVENTS, to_json(event), event.user, timestamp=1_700_000_000_000 + 1000 * n)
    assert producer.flush(20) == 0


def _taken(settings: Settings, count: int) -> Scrape:
    """The page of `features` once its own gauges say that it has committed so many events and nothing waits."""
    log = settings.data_dir / "features.log"
    command = [sys.executable, "-m", "infra.cli.main", "run", "features"]
    flow = spawn(command, log, {**os.environ, **settings.environment()})
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            page = read(settings, "features") or Scrape()
            committed = page.find("premiere_group_lag_messages") and not page.value("premiere_group_lag_messages")
            if page.value("premiere_events_total") == count and committed:
                with pytest.raises(SettingsError, match="Flows are running"):
                    reset(settings, lambda what: True, print)
                return page
            assert flow.poll() is None, tail(log)
            assert time.monotonic() < deadline, tail(log)
            time.sleep(0.5)
    finally:
        stop(flow)
        assert flow.returncode == 0, tail(log)


def _described(home: Path, settings: Settings, group: str) -> dict[tuple[str, int], tuple[int, int, int]]:
    """(topic, partition): committed, end, lag, as `kafka-consumer-groups.sh --describe` prints them."""
    words = ["--bootstrap-server", settings.bootstrap_servers, "--describe", "--group", group]
    printed = _tool(home, "kafka-consumer-groups.sh", *words)
    rows = re.findall(rf"^{group} +(\S+) +(\d+) +(\d+) +(\d+) +(\d+) ", printed, re.M)
    return {(topic, int(partition)): (int(a), int(b), int(c)) for topic, partition, a, b, c in rows}


def _shown(rows: list[Lag]) -> dict[tuple[str, int], tuple[int | None, int, int]]:
    return {(row.topic, row.partition): (row.committed, row.end, row.lag) for row in rows if row.group == "features"}


def test_the_group_lag_that_kafkas_own_tool_prints_agrees_with_the_status(kafka_home: Path, settings: Settings) -> None:
    _events(settings, 40)
    page = _taken(settings, 40)
    assert len(page.find("premiere_group_lag_seconds", group="features", topic=USER_EVENTS)) == 8
    _events(settings, 25, start=40)
    described, found = _described(kafka_home, settings, "features"), status(settings)
    shown = _shown(list(found[0].lags))
    assert described == shown
    assert len(described) == 8
    assert sum(lag for _, _, lag in described.values()) == 25
    told = [row for row in as_json(*found)["lag"] if row["group"] == "features"]
    assert sum(row["lag"] for row in told) == 25
    assert all((row["seconds"] > 0) <= (row["lag"] > 1) for row in told)


def test_the_console_producers_example_sends_what_the_flow_can_use(kafka_home: Path, settings: Settings) -> None:
    example = _block(CONTRACTS, "kafka-console-producer", "sh")
    env = {**os.environ, "PATH": f"{kafka_home / 'bin'}:{os.environ['PATH']}"}
    own = example.replace(LOCAL_KAFKA, settings.bootstrap_servers)
    done = subprocess.run(["bash", "-ec", own], env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    sent = [message for message in read_all(settings.kafka(), USER_EVENTS) if message.key == b"viewer-42"]
    taken = sort(sent)
    assert (len(sent), taken.rejected) == (1, [])
    assert list(taken.users) == ["viewer-42"]


def test_a_users_events_lie_in_one_partition_whoever_sends_them(kafka_home: Path, settings: Settings) -> None:
    lines = "".join(f'u{n}|{{"user": "u{n}", "title": "t", "ts": 1}}\n' for n in range(40))
    words = ["--bootstrap-server", settings.bootstrap_servers, "--topic", USER_EVENTS]
    words += ["--property", "parse.key=true", "--property", "key.separator=|"]
    _tool(kafka_home, "kafka-console-producer.sh", *words, given=lines)
    where: dict[bytes | None, set[int]] = {}
    for message in read_all(settings.kafka(), USER_EVENTS):
        where.setdefault(message.key, set()).add(message.partition)
    assert {len(partitions) for partitions in where.values()} == {1}
