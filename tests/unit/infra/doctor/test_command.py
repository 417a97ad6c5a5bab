"""`premiere doctor` on real services: a working deployment has no error, and each planted fault is found."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from redis import Redis
from typer.testing import CliRunner

from infra.cli.main import app
from infra.doctor import host_checks
from infra.doctor.command import diagnose, refuse_start
from infra.doctor.findings import Finding
from infra.errors import SettingsError
from infra.local.embedded import LOOPBACK, start_kafka, start_redis
from infra.local.supervisor import FLOWS
from infra.settings import Settings
from infra.topics import create_topics, delete_topics
from model import checkpoint
from model.state.embedding_space import EmbeddingSpace
from streaming.kafka.client import producer_config
from streaming.state.text_space import space_records
from streaming.topics import ACTIVITY, DEAD_LETTERS, TITLES, topics
from tests.support.kafka import StartBroker
from tests.support.paths import ROOT


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
        ({"data_dir": Path("/dev/null")}, "disk", "cannot be written"),
    ],
)
def test_each_fault_is_an_error_with_a_remedy(
    settings: Settings, changes: dict[str, Any], part: str, text: str
) -> None:
    errors = [one for one in problems(settings.model_copy(update=changes)) if one.level == "error"]
    assert part in {one.part for one in errors}
    assert any(text in one.text for one in errors if one.part == part), errors


def test_file_in_place_of_a_folder_is_an_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "recovery").touch()
    (found,) = [one for one in problems(settings.model_copy(update={"data_dir": tmp_path})) if one.level == "error"]
    assert (found.text, found.remedy) == (f"{tmp_path / 'recovery'} is a file where a folder must be", "Move it away.")


def test_full_disk_is_an_error_that_refuses_no_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_checks, "FULL_GB", 1e12)
    assert [(one.level, one.part) for one in problems(settings)] == [("error", "disk")]
    refuse_start(settings, FLOWS)


def test_checkpoint_of_another_shape_is_an_error(settings: Settings, tmp_path: Path) -> None:
    manifest = {"settings": {"backbone.width": 96}}
    checkpoint.save(str(tmp_path / f"{7:012d}"), {"part": {"number": 1}}, manifest)
    (found,) = problems(settings.model_copy(update={"checkpoints": str(tmp_path)}))
    assert (found.level, found.part) == ("error", "model")
    assert "was written with backbone.width = 96." in found.text
    assert found.remedy.startswith("Restore these values, or set PREMIERE_CHECKPOINTS")


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


def test_user_who_may_not_run_info_is_a_warning(settings: Settings) -> None:
    with Redis.from_url(settings.redis_url) as client:
        client.acl_setuser("plain", enabled=True, passwords=["+secret"], categories=["+@all", "-@dangerous"],
                           keys=["*"], channels=["*"])  # fmt: skip
    url = settings.redis_url.replace("redis://", "redis://plain:secret@")
    (found,) = problems(settings.model_copy(update={"redis_url": url}))
    assert (found.level, found.part) == ("warning", "redis")


def test_secrets_in_the_url_of_the_checkpoints_are_masked(settings: Settings) -> None:
    (found,) = problems(settings.model_copy(update={"checkpoints": "nothing://x?token=hunter2"}))
    assert "hunter2" not in found.text


def test_titles_of_another_encoder_are_an_error(settings: Settings) -> None:
    producer = Producer(producer_config(settings.kafka_config()))
    for space, complete, text in (
        (EmbeddingSpace("other", 4), True, "`premiere reembed`"),
        (EmbeddingSpace("wordllama", 256), False, "interrupted"),
        (EmbeddingSpace("wordllama", 256), True, ""),
    ):
        producer.produce(TITLES, space_records(space, complete)[TITLES].value, b"space")
        assert producer.flush(30) == 0
        found = [finding.text for finding in problems(settings) if finding.part == "titles"]
        assert [text in line for line in found] == ([True] if text else [])


def test_newest_record_ahead_of_the_clock_is_an_error(settings: Settings) -> None:
    later_ms = int((time.time() + 3600) * 1000)
    producer = Producer(producer_config(settings.kafka_config()))
    producer.produce(ACTIVITY, b"record", timestamp=later_ms)
    assert producer.flush(30) == 0
    (found,) = problems(settings)
    assert (found.level, found.part, found.may_pass) == ("error", "clock", True)


LASTING = [
    ({"event_partitions": 4}, "features", "PREMIERE_EVENT_PARTITIONS=8"),
    ({"redis_url": "redis://h?client_name=a,b"}, "publish", "comma"),
    ({"checkpoints": "nothing://x"}, "learn", "PREMIERE_CHECKPOINTS"),
    ({"data_dir": Path("/proc/premiere")}, "titles", "PREMIERE_DATA_DIR"),
]
UNREACHABLE: Mapping[str, Any] = {"bootstrap_servers": f"{LOOPBACK}:1", "redis_url": f"redis://{LOOPBACK}:1/0"}


def refusals(settings: Settings) -> dict[str, str]:
    """The message for each flow whose start is refused."""
    found = {}
    for flow in FLOWS:
        try:
            refuse_start(settings, [flow])
        except SettingsError as error:
            found[flow] = str(error)
    return found


def test_working_deployment_is_not_refused(settings: Settings) -> None:
    refuse_start(settings, FLOWS)


@pytest.mark.parametrize(("changes", "flow", "remedy"), LASTING)
def test_lasting_error_refuses_the_start_with_its_remedy(
    settings: Settings, changes: dict[str, Any], flow: str, remedy: str
) -> None:
    assert remedy in refusals(settings.model_copy(update=changes))[flow]


def test_flow_is_refused_only_for_its_own_topics(settings: Settings) -> None:
    delete_topics(settings.kafka_config(), [DEAD_LETTERS])
    try:
        assert set(refusals(settings)) == {"features", "titles"}
    finally:
        create_topics(settings.kafka_config(), topics())


def test_only_learn_needs_the_checkpoint_storage_and_no_redis(settings: Settings) -> None:
    assert set(refusals(settings.model_copy(update={"checkpoints": "nothing://x"}))) == {"learn"}
    assert "learn" not in refusals(settings.model_copy(update={"redis_url": "redis://h?client_name=a,b"}))


def test_outage_is_left_to_the_flows_within_seconds(settings: Settings) -> None:
    started = time.monotonic()
    refuse_start(settings.model_copy(update=UNREACHABLE), FLOWS)
    assert time.monotonic() - started < 20


def test_redis_that_fails_over_or_is_full_is_left_to_the_flows(settings: Settings) -> None:
    with Redis.from_url(settings.redis_url) as client:
        try:
            client.replicaof(LOOPBACK, 1)
            refuse_start(settings, FLOWS)
            client.replicaof("NO", "ONE")
            client.config_set("maxmemory", 1)
            refuse_start(settings, FLOWS)
        finally:
            client.replicaof("NO", "ONE")
            client.config_set("maxmemory", 64 << 20)


REDIS_USERS = [("operators", FLOWS), *((flow, [flow]) for flow in FLOWS if flow != "learn")]


@pytest.mark.parametrize(("user", "flows"), REDIS_USERS)
def test_user_with_the_documented_permissions_is_not_refused(settings: Settings, user: str, flows: list[str]) -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    (rule,) = (line for line in page.splitlines() if line.startswith(f"ACL SETUSER {user} "))
    with Redis.from_url(settings.redis_url) as client:
        client.execute_command(*rule.replace("PASSWORD", "secret").split(" "))
    url = settings.redis_url.replace("redis://", f"redis://{user}:secret@")
    refuse_start(settings.model_copy(update={"redis_url": url}), flows)


@pytest.mark.parametrize("command", [["up"], ["run", "features"], ["run", "features", "--workers", "2"]], ids=" ".join)
def test_command_ends_with_one_sentence_before_a_flow_starts(settings: Settings, command: list[str]) -> None:
    with Redis.from_url(settings.redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "infra.cli.main", *command],
                env={**os.environ, **settings.environment()}, capture_output=True, text=True, timeout=120,
            )  # fmt: skip
        finally:
            client.config_set("maxmemory-policy", "volatile-ttl")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("Set maxmemory-policy volatile-ttl.")


def test_compacted_events_refuse_the_start(kafka_home: Path, tmp_path: Path) -> None:
    with start_kafka(tmp_path / "kafka", kafka_home, "apache") as address:
        made = Settings(data_dir=tmp_path, bootstrap_servers=address)
        wanted = topics()
        create_topics(
            made.kafka_config(), [wanted[0]._replace(config=wanted[0].config | {"cleanup.policy": "compact"})]
        )
        create_topics(made.kafka_config(), wanted)
        with pytest.raises(SettingsError, match=r"user-events has cleanup.policy=compact.*cleanup.policy=delete"):
            refuse_start(made, ["features"])
        refuse_start(made, ["titles"])
