"""The loop's status from a real broker and real metrics pages: for people, for scripts, and where something is gone."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client import Gauge
from rich.console import Console
from typer.testing import CliRunner

from infra.cli.main import app
from infra.monitor.lag import Lag
from infra.monitor.metrics_server import free_base, serve
from infra.monitor.status import LEARNER, Status, accounted, as_json, show, status
from infra.settings import Settings
from infra.topics import create
from streaming.flows.features import DOUBLES, EVENTS
from streaming.flows.learn import LEARNED, LOSS, POSITION, SCORED, SUM
from streaming.kafka.dead_letters import LETTERS
from streaming.records import Version, to_json
from streaming.stores.redis_lists import FRESHNESS
from streaming.topics import MODEL_VERSIONS, USER_EVENTS, topics
from tests.support.kafka import OwnKafka

EVENTS_SENT = 5


@pytest.fixture(scope="module")
def settings(own_kafka: OwnKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker of its own with some events and a version, and the flows' own metrics: all live in this process."""
    with own_kafka(tmp_path_factory.mktemp("kafka")) as address:
        yield _prepared(address)


def _prepared(address: str) -> Settings:
    base = free_base(Settings(metrics_port=23_600))
    made = Settings(bootstrap_servers=address, redis_url="redis://127.0.0.1:1/0", metrics_port=base)
    create(made.kafka(), topics(made.event_partitions))
    producer = Producer({**made.kafka(), "partitioner": "murmur2_random"})
    for user in range(EVENTS_SENT):
        producer.produce(USER_EVENTS, b"{}", str(user).encode())
    path, now = "file:///checkpoints/00000007", int(time.time() * 1000)
    version = Version(path=path, step=7, position=70, learned=64, mrr=0.05, created=now)
    producer.produce(MODEL_VERSIONS, to_json(version))
    assert producer.flush(10) == 0
    for flow in ("features", "learn", "publish"):
        serve(made, flow)
    return made


@pytest.fixture(scope="module")
def metrics() -> None:
    """What the flows say."""
    LEARNED.set(64)
    POSITION.set(70)
    LOSS.labels("sequence").set(2.5)
    SCORED.labels("all").set(50)
    SUM.labels("full", "mrr", "all").set(2.5)
    EVENTS.inc(66)
    DOUBLES.inc(2)
    LETTERS.labels("test status").inc(3)
    for milliseconds in (90, 100, 110, 700):
        FRESHNESS.labels("event").observe(milliseconds / 1000)


def test_scripts_get_everything(settings: Settings, metrics: None) -> None:
    found = json.loads(json.dumps(as_json(*status(settings))))
    assert found["flows"] == {"features": True, "titles": False, "learn": True, "publish": True}
    assert found["learner"]["learned"] == 64
    assert found["learner"]["position"] == 70
    assert found["loss"]["sequence"] == 2.5
    assert found["mrr"]["full"]["all"] == 0.05
    assert found["events"]["dead_lettered"]["test status"] >= 3
    assert 80 < found["freshness_ms"]["event"]["p50"] < 130
    assert found["version"]["number"] >= 0
    assert found["version"]["path"] == "file:///checkpoints/00000007"
    assert {row["group"] for row in found["lag"]} == {"features", "titles", "learn", "publish"}


def test_what_a_group_has_not_committed_waits(settings: Settings) -> None:
    first, _ = status(settings)
    before = first.waiting("features", USER_EVENTS)
    assert before >= EVENTS_SENT
    row = next(row for row in first.lags if row.topic == USER_EVENTS and row.lag)
    consumer = Consumer({**settings.kafka(), "group.id": "features", "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(USER_EVENTS, row.partition, row.end)], asynchronous=False)
    consumer.close()
    assert status(settings)[0].waiting("features", USER_EVENTS) == before - row.lag


def test_events_are_accounted_for_as_learned_double_or_dead(settings: Settings, metrics: None) -> None:
    before = accounted(settings)
    LEARNED.inc(5)
    DOUBLES.inc(7)
    LETTERS.labels("test status").inc(11)
    assert accounted(settings) == before + 5 + 7 + 11
    LEARNED.set(64)


def test_people_get_a_table(settings: Settings, metrics: None) -> None:
    console = Console(width=110, file=io.StringIO(), record=True)
    show(*status(settings), console)
    shown = " ".join(console.export_text().split())
    for part in (
        "user-events",
        "committed",
        "no answer from titles",
        "64 events",
        "test status",
        "MRR, premiere 0.0500",
    ):
        assert part in shown, part
    assert "freshness, event" in shown


def test_where_nothing_runs_everything_is_unknown_and_nothing_fails() -> None:
    empty = Status()
    assert (empty.version, empty.accounted, empty.lag()) == (None, 0, {})
    found = as_json(empty, None)
    assert found["version"] is None
    assert found["freshness_ms"]["event"]["p50"] is None
    assert "no answer from" in _shown(empty)


def _shown(found: Status) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    show(found, None, console)
    return console.export_text()


def test_lag_is_summed_by_flow_and_topic() -> None:
    rows = [Lag("features", USER_EVENTS, 0, 3, 5, 2), Lag("features", USER_EVENTS, 1, None, 4, 4)]
    assert Status(lags=rows).lag() == {"features < user-events": 6}
    assert "-" in _shown(Status(lags=rows))


def test_every_gauge_that_is_shown_exists() -> None:
    from prometheus_client import REGISTRY

    for name in LEARNER.values():
        assert isinstance(REGISTRY._names_to_collectors.get(name), Gauge), name


def test_the_command_prints_json_or_a_table(
    settings: Settings, metrics: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREMIERE_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("PREMIERE_METRICS_PORT", str(settings.metrics_port))
    result = CliRunner().invoke(app, ["status", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["learner"]["learned"] == 64
    assert "user-events" in CliRunner().invoke(app, ["status"]).output


def test_without_a_broker_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "PREMIERE_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 1
    assert "No Kafka is known: run `premiere up`" in result.stderr
