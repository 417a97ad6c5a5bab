"""The start of a flow is refused for an error that does not pass, and for nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from infra.doctor.command import refuse_start
from infra.errors import SettingsError
from infra.local.embedded import LOOPBACK
from infra.local.supervisor import FLOWS
from infra.settings import Settings
from infra.topics import create_topics, delete_topics
from streaming.topics import DEAD_LETTERS, topics
from tests.support.paths import ROOT

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


def test_user_with_the_documented_permissions_is_not_refused(settings: Settings) -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    (rule,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER flows "))
    with Redis.from_url(settings.redis_url) as client:
        client.execute_command(*rule.replace("PASSWORD", "secret").split(" "))
    url = settings.redis_url.replace("redis://", "redis://flows:secret@")
    refuse_start(settings.model_copy(update={"redis_url": url}), FLOWS)


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
    assert done.returncode == 1
    assert done.stderr.count("Set maxmemory-policy volatile-ttl.") == 1
    assert "Traceback" not in done.stderr
