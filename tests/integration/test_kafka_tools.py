"""Kafka's command-line tools with Apache Kafka: the console producer, and the lag of consumer groups."""

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
from infra.local.processes import log_tail, spawn, stop
from infra.monitor.lag import PartitionLag
from infra.monitor.scrape import Scrape, scrape_flow
from infra.monitor.status import as_json, status_and_version
from infra.operate.reset import delete_state
from infra.settings import Settings
from infra.topics import create_topics
from streaming.flows.features import parse_events
from streaming.kafka.source import read_all
from streaming.records import Event, to_json
from streaming.topics import USER_EVENTS, topics
from tests.support.docs import CONTRACTS, EXAMPLE_USER, LOCAL_KAFKA, code_block
from tests.support.ports import free_base_port

TIMEOUT_S: Final = 90.0


@pytest.fixture(scope="module")
def settings(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Apache Kafka with the project's topics, and a Redis."""
    folder = tmp_path_factory.mktemp("stack")
    with start_kafka(folder / "kafka", kafka_home) as address, start_redis(folder / "redis") as url:
        base = free_base_port(Settings(metrics_port=24_600))
        settings = Settings(bootstrap_servers=address, redis_url=url, metrics_port=base, data_dir=folder)
        create_topics(settings.kafka_config(), topics(settings.event_partitions))
        yield settings


def _tool(home: Path, name: str, *arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [str(home / "bin" / name), *arguments], input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _produce_events(settings: Settings, count: int, start: int = 0) -> None:
    producer = Producer({**settings.kafka_config(), "partitioner": "murmur2_random"})
    for n in range(start, start + count):
        event = Event(user=f"u{n}", title="t", ts=1_700_000_000_000 + n)
        producer.produce(USER_EVENTS, to_json(event), event.user, timestamp=1_700_000_000_000 + 1000 * n)
    assert producer.flush(20) == 0


def _run_features(settings: Settings, count: int) -> Scrape:
    """The metrics of `features` after it has committed this number of events and has no lag."""
    log = settings.data_dir / "features.log"
    command = [sys.executable, "-P", "-m", "infra.cli.main", "run", "features"]
    flow = spawn(command, log, {**os.environ, **settings.environment()})
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            page = scrape_flow(settings, "features") or Scrape()
            committed = page.select("premiere_consumer_lag_records") and not page.value("premiere_consumer_lag_records")
            if page.value("premiere_events_total") == count and committed:
                with pytest.raises(SettingsError, match="Flows are running"):
                    delete_state(settings, lambda question: True, print)
                return page
            assert flow.poll() is None, log_tail(log)
            assert time.monotonic() < deadline, log_tail(log)
            time.sleep(0.5)
    finally:
        stop(flow)
        assert flow.returncode == 0, log_tail(log)


def _lag_by_kafka(home: Path, settings: Settings, group: str) -> dict[tuple[str, int], tuple[int, int, int]]:
    """(topic, partition) -> committed, end, lag, as `kafka-consumer-groups.sh --describe` prints them."""
    arguments = ["--bootstrap-server", settings.bootstrap_servers, "--describe", "--group", group]
    printed = _tool(home, "kafka-consumer-groups.sh", *arguments)
    rows = re.findall(rf"^{group} +(\S+) +(\d+) +(\d+) +(\d+) +(\d+) ", printed, re.M)
    return {(topic, int(partition)): (int(a), int(b), int(c)) for topic, partition, a, b, c in rows}


def _lag_by_status(rows: list[PartitionLag]) -> dict[tuple[str, int], tuple[int | None, int, int]]:
    return {
        (row.topic, row.partition): (row.committed_offset, row.end_offset, row.records)
        for row in rows
        if row.group == "features"
    }


def test_consumer_lag_equals_that_of_kafka_tool(kafka_home: Path, settings: Settings) -> None:
    _produce_events(settings, 40)
    page = _run_features(settings, 40)
    assert len(page.select("premiere_consumer_lag_seconds", group="features", topic=USER_EVENTS)) == 8
    _produce_events(settings, 25, start=40)
    expected, found = _lag_by_kafka(kafka_home, settings, "features"), status_and_version(settings)
    lag = _lag_by_status(list(found[0].lags))
    assert lag == expected
    assert len(expected) == 16  # user-events and erasure-requests have 8 partitions each
    assert sum(records for _, _, records in expected.values()) == 25
    rows = [row for row in as_json(*found)["lag"] if row["group"] == "features"]
    assert sum(row["records"] for row in rows) == 25
    assert all((row["seconds"] > 0) <= (row["records"] > 1) for row in rows)


def test_console_producer_example_sends_valid_event(kafka_home: Path, settings: Settings) -> None:
    example = code_block(CONTRACTS, "kafka-console-producer", "sh")
    env = {**os.environ, "PATH": f"{kafka_home / 'bin'}:{os.environ['PATH']}"}
    command = example.replace(LOCAL_KAFKA, settings.bootstrap_servers)
    done = subprocess.run(["bash", "-ec", command], env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    sent = [
        message for message in read_all(settings.kafka_config(), USER_EVENTS) if message.key == EXAMPLE_USER.encode()
    ]
    parsed = parse_events(sent)
    assert (len(sent), parsed.letters) == (1, [])
    assert list(parsed.users) == [EXAMPLE_USER]


def test_all_producers_use_the_same_partition_for_a_user(kafka_home: Path, settings: Settings) -> None:
    lines = "".join(f'u{n}|{{"user": "u{n}", "title": "t", "ts": 1}}\n' for n in range(40))
    arguments = ["--bootstrap-server", settings.bootstrap_servers, "--topic", USER_EVENTS]
    arguments += ["--property", "parse.key=true", "--property", "key.separator=|"]
    _tool(kafka_home, "kafka-console-producer.sh", *arguments, stdin=lines)
    partitions_by_user: dict[bytes | None, set[int]] = {}
    for message in read_all(settings.kafka_config(), USER_EVENTS):
        partitions_by_user.setdefault(message.key, set()).add(message.partition)
    assert {len(partitions) for partitions in partitions_by_user.values()} == {1}
