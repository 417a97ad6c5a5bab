"""`premiere status` against a real broker and real metrics endpoints: as JSON, as tables and without services."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from prometheus_client import REGISTRY, Counter
from rich.console import Console
from typer.testing import CliRunner

from infra.cli.main import app
from infra.monitor.lag import LagReader, PartitionLag
from infra.monitor.metrics_server import start_metrics_server
from infra.monitor.status import (
    LEARNER_METRICS,
    Status,
    as_json,
    print_status,
    processed_events,
    read_status,
    status_and_version,
)
from infra.run.starts import RESTARTS
from infra.settings import Settings
from infra.topics import create_topics
from streaming import phase
from streaming.flows.learner_metrics import LEARNED_EVENTS, LOSS, POSITION, PREQUENTIAL_SCORED, PREQUENTIAL_SUM
from streaming.flows.publish import VERSION_SERVED
from streaming.kafka.dead_letters import DEAD_LETTERS_WRITTEN
from streaming.phase import Phase
from streaming.records import Version, to_json
from streaming.state.user_state import DUPLICATES, EVENTS
from streaming.stores.redis_lists import END_TO_END_LATENCY
from streaming.topics import MODEL_VERSIONS, USER_EVENTS, topics
from tests.support.kafka import StartBroker, commit_offset
from tests.support.ports import free_base_port

EVENTS_SENT = 5


@pytest.fixture(scope="module")
def settings(start_broker: StartBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker with some events and a model version; this process serves the metrics of three flows."""
    with start_broker(tmp_path_factory.mktemp("kafka")) as address:
        yield _prepare(address)


def _prepare(address: str) -> Settings:
    base = free_base_port(Settings(metrics_port=23_600))
    made = Settings(bootstrap_servers=address, redis_url="redis://127.0.0.1:1/0", metrics_port=base)
    create_topics(made.kafka_config(), topics(made.event_partitions))
    producer = Producer({**made.kafka_config(), "partitioner": "murmur2_random"})
    for user in range(EVENTS_SENT):
        producer.produce(USER_EVENTS, b"{}", str(user).encode())
    path, now = "file:///checkpoints/00000007", int(time.time() * 1000)
    version = Version(path=path, step=7, position=70, learned=64, mrr=0.05, created=now)
    producer.produce(MODEL_VERSIONS, to_json(version))
    assert producer.flush(10) == 0
    for flow in ("features", "learn", "publish"):
        start_metrics_server(made, flow)
    return made


def set_counter(counter: Counter, value: float) -> None:
    """Other tests of this process may have increased it."""
    counter.reset()
    counter.inc(value)


@pytest.fixture(scope="module")
def metrics() -> None:
    """The values of the flows' metrics."""
    phase.enter(Phase.STARTING)
    RESTARTS.set(0)
    set_counter(LEARNED_EVENTS, 64)
    POSITION.set(70)
    LOSS.labels("sequence").set(2.5)
    set_counter(PREQUENTIAL_SCORED.labels("all"), 50)
    set_counter(PREQUENTIAL_SUM.labels("full", "mrr", "all"), 2.5)
    EVENTS.inc(66)
    DUPLICATES.inc(2)
    DEAD_LETTERS_WRITTEN.labels("test status").inc(3)
    for milliseconds in (90, 100, 110, 700):
        END_TO_END_LATENCY.labels("event").observe(milliseconds / 1000)


def test_status_as_json(settings: Settings, metrics: None) -> None:
    found = json.loads(json.dumps(as_json(*status_and_version(settings))))
    assert found["flows"] == {"features": True, "titles": False, "learn": True, "publish": True}
    assert found["phases"] == dict.fromkeys(("features", "learn", "publish"), "starting") | {"titles": "not running"}
    assert found["restarts"] == dict.fromkeys(("features", "titles", "learn", "publish"), 0)
    assert found["learner"]["learned_events"] == 64
    assert found["learner"]["log_position"] == 70
    assert found["loss"]["sequence"] == 2.5
    assert found["mrr"]["full"]["all"] == 0.05
    assert found["events"]["dead_letters"]["test status"] >= 3
    assert found["end_to_end_latency_ms"]["event"]["p50"] > 0  # other tests of this process observe too
    assert found["version"]["number"] >= 0
    assert found["version"]["path"] == "file:///checkpoints/00000007"
    assert {row["group"] for row in found["lag"]} == {"features", "titles", "learn", "publish"}


def test_phase_and_restarts_of_a_flow_are_shown(settings: Settings) -> None:
    phase.enter(Phase.COMPILING)
    RESTARTS.set(2)
    try:
        shown = _as_text(status_and_version(settings)[0])
    finally:
        phase.enter(Phase.STARTING)
        RESTARTS.set(0)
    assert "compiling, 2 restarts after a crash" in shown


def test_command_fails_if_a_flow_does_not_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert CliRunner().invoke(app, ["status"]).exit_code == 1
    monkeypatch.setenv("PREMIERE_METRICS_PORT", "0")  # without metrics nobody knows
    assert CliRunner().invoke(app, ["status"]).exit_code == 0


def test_commit_lowers_lag(settings: Settings) -> None:
    first, _ = status_and_version(settings)
    before = first.lag_records("features", USER_EVENTS)
    assert before >= EVENTS_SENT
    row = next(row for row in first.lags if row.topic == USER_EVENTS and row.records)
    commit_offset(settings.bootstrap_servers, "features", USER_EVENTS, row.end_offset, row.partition)
    assert status_and_version(settings)[0].lag_records("features", USER_EVENTS) == before - row.records


def test_processed_events_are_learned_duplicate_or_dead_letter(settings: Settings, metrics: None) -> None:
    before = processed_events(settings)
    LEARNED_EVENTS.inc(5)
    DUPLICATES.inc(7)
    DEAD_LETTERS_WRITTEN.labels("test status").inc(11)
    assert processed_events(settings) == before + 5 + 7 + 11
    set_counter(LEARNED_EVENTS, 64)


def test_status_as_tables(settings: Settings, metrics: None) -> None:
    console = Console(width=110, file=io.StringIO(), record=True)
    print_status(*status_and_version(settings), console)
    shown = " ".join(console.export_text().split())
    for part in (
        "user-events",
        "committed",
        "titles not running",
        "64 events",
        "test status",
        "MRR, full 0.0500",
        "end-to-end latency, event",
    ):
        assert part in shown, part


def test_empty_status_has_no_values() -> None:
    empty = Status()
    assert (empty.version, empty.processed_events, empty.lag_by_topic()) == (None, 0, {})
    found = as_json(empty, None)
    assert found["version"] is None
    assert found["end_to_end_latency_ms"]["event"]["p50"] is None
    assert "not running" in _as_text(empty)


def test_restarts_of_a_flow_that_does_not_run_are_shown(settings: Settings, tmp_path: Path) -> None:
    for worker, count in ((0, 2), (1, 1)):
        (tmp_path / "starts").mkdir(exist_ok=True)
        (tmp_path / "starts" / f"titles-{worker}.json").write_text(json.dumps({"restarts": count, "running": False}))
    with LagReader(settings.kafka_config()) as lags:
        found = read_status(settings.model_copy(update={"data_dir": tmp_path}), lags)
    assert "not running, 3 restarts after a crash" in _as_text(found)


def test_served_version_is_shown_beside_the_announced_one(settings: Settings) -> None:
    VERSION_SERVED.set(-1)
    status, newest = status_and_version(settings)
    assert (status.served_version, as_json(status, newest)["served_version"]) == (None, None)
    VERSION_SERVED.set(3)
    status, newest = status_and_version(settings)
    assert as_json(status, newest)["served_version"] == 3
    text = [line.split() for line in _as_text(status, newest).splitlines()]
    assert ["served", "version", "3"] in text
    assert any(line[:2] == ["announced", "version"] for line in text)


def test_kinds_without_dead_letters_are_left_out(settings: Settings, metrics: None) -> None:
    DEAD_LETTERS_WRITTEN.labels("never seen")
    text = _as_text(status_and_version(settings)[0])
    assert "test status" in text
    assert "never seen" not in text


def _as_text(found: Status, newest: tuple[int, Version] | None = None) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    print_status(found, newest, console)
    return console.export_text()


def test_lag_is_summed_by_group_and_topic() -> None:
    rows = [PartitionLag("features", USER_EVENTS, 0, 3, 5, 2), PartitionLag("features", USER_EVENTS, 1, None, 4, 4)]
    assert Status(lags=rows).lag_by_topic() == {"features < user-events": 6}
    assert "-" in _as_text(Status(lags=rows))


def test_learner_metrics_of_the_status_are_exported() -> None:
    exported = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    assert set(LEARNER_METRICS.values()) <= exported


def test_status_command_prints_json_or_tables(
    settings: Settings, metrics: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREMIERE_BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv("PREMIERE_METRICS_PORT", str(settings.metrics_port))
    result = CliRunner().invoke(app, ["status", "--json"])
    assert result.exit_code == 1, result.output  # titles does not run
    assert json.loads(result.output)["learner"]["learned_events"] == 64
    assert "user-events" in CliRunner().invoke(app, ["status"]).output


def test_status_command_without_broker_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "PREMIERE_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 2
    assert "run `premiere up`" in result.stderr
