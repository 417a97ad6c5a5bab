"""`premiere doctor` on real services: a working deployment has no error, and each planted fault is found."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner

from infra.cli.main import app
from infra.doctor.command import diagnose
from infra.doctor.findings import Finding
from infra.local.embedded import LOOPBACK, start_redis
from infra.settings import Settings
from infra.topics import create_topics, delete_topics
from streaming.topics import DEAD_LETTERS, topics
from tests.support.kafka import StartBroker


@pytest.fixture(scope="module")
def settings(start_broker: StartBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("doctor")
    with start_broker(folder / "kafka") as address, start_redis(folder / "redis", keep=True) as url:
        made = Settings(data_dir=folder / "data", bootstrap_servers=address, redis_url=url, metrics_port=29_400)
        create_topics(made.kafka_config(), topics())
        with Redis.from_url(url) as client:
            client.config_set("maxmemory", 64 << 20)
            client.config_set("maxmemory-policy", "volatile-ttl")
        yield made


def problems(settings: Settings) -> list[Finding]:
    return [finding for finding in diagnose(settings) if finding.level != "ok"]


def test_working_deployment_has_no_problem(settings: Settings) -> None:
    assert problems(settings) == []
    assert {finding.part for finding in diagnose(settings)} >= {
        "settings",
        "kafka",
        "redis",
        "disk",
        "ports",
        "encoder",
    }


def test_missing_topic_is_an_error(settings: Settings) -> None:
    delete_topics(settings.kafka_config(), [DEAD_LETTERS])
    try:
        (found,) = problems(settings)
    finally:
        create_topics(settings.kafka_config(), topics())
    assert found == Finding("error", "kafka", f"missing topics: {DEAD_LETTERS}", "Run `premiere topics --create`.")


def test_number_of_partitions_is_compared(settings: Settings) -> None:
    found = problems(settings.model_copy(update={"event_partitions": 4}))
    assert {(one.level, one.remedy.split(",")[0]) for one in found} == {("error", "Set PREMIERE_EVENT_PARTITIONS=8")}


@pytest.mark.parametrize(
    ("changes", "part", "text"),
    [
        ({"bootstrap_servers": f"{LOOPBACK}:1"}, "kafka", "No Kafka answers"),
        ({"redis_url": f"redis://{LOOPBACK}:1/0"}, "redis", "does not answer"),
        ({"redis_url": "redis://h?client_name=a,b"}, "feast", "comma"),
        ({"text_encoder": "/nowhere"}, "encoder", "/nowhere"),
        ({"data_dir": Path("/proc/premiere")}, "disk", "cannot be written"),
        ({"checkpoints": "nothing://x"}, "storage", "cannot be written"),
    ],
)
def test_each_fault_is_an_error_with_a_remedy(
    settings: Settings, changes: dict[str, Any], part: str, text: str
) -> None:
    errors = [one for one in problems(settings.model_copy(update=changes)) if one.level == "error"]
    assert part in {one.part for one in errors}
    assert any(text in one.text for one in errors if one.part == part), errors


def test_redis_without_limits_and_persistence_is_a_warning(settings: Settings, redis_url: str) -> None:
    found = problems(settings.model_copy(update={"redis_url": redis_url}))
    assert {(one.level, one.part) for one in found} == {("warning", "redis")}
    assert {one.remedy.split(",")[0] for one in found} >= {"Set maxmemory"}


def test_eviction_of_any_key_is_an_error(settings: Settings) -> None:
    with Redis.from_url(settings.redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            (found,) = problems(settings)
        finally:
            client.config_set("maxmemory-policy", "volatile-ttl")
    assert (found.level, found.remedy) == ("error", "Set maxmemory-policy volatile-ttl.")


def test_user_without_permissions_is_an_error(settings: Settings) -> None:
    with Redis.from_url(settings.redis_url) as client:
        client.acl_setuser("reader", enabled=True, passwords=["+secret"], categories=["+@read", "+@connection"],
                           commands=["+info"], keys=["*"])  # fmt: skip
    address = settings.redis_url.replace("redis://", "redis://reader:secret@")
    (found,) = problems(settings.model_copy(update={"redis_url": address}))
    assert found.level == "error"
    assert "a command was refused" in found.text
    assert "secret" not in found.text


def test_command_prints_findings_and_fails_on_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["doctor"])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "0 errors, 0 warnings.")
    monkeypatch.setenv("PREMIERE_REDIS_URL", f"redis://{LOOPBACK}:1/0")
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert [one["part"] for one in json.loads(done.output) if one["level"] == "error"] == ["redis"]
