"""Apache Kafka with SASL: passwords reach every client and are never printed, and a wrong one fails soon."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from infra.errors import SettingsError
from infra.local.embedded import LOOPBACK, free_port, start_kafka
from infra.local.processes import log_tail, spawn, stop
from infra.local.supervisor import FLOWS

SECRET: Final = "correct-horse-battery"
WRONG_SECRET: Final = "staple-of-another"
TIMEOUT_S: Final = 90.0  # for the start of several interpreters on a busy machine
REFUSAL_LIMIT_S: Final = 60.0  # until a wrong password is reported: the start of an interpreter and 15 s
PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"


class SecuredBroker(NamedTuple):
    """The addresses of a broker's two listeners."""

    plaintext: str
    sasl: str


@pytest.fixture(scope="module")
def secured(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """The first start formats the folder; the second has an additional listener."""
    folder = tmp_path_factory.mktemp("secured")
    with start_kafka(folder, kafka_home, "apache"):
        pass
    properties = folder / "server.properties"
    lines = properties.read_text().splitlines()
    (listeners,) = (line for line in lines if line.startswith("listeners="))
    (advertised,) = (line for line in lines if line.startswith("advertised.listeners="))
    sasl_address = f"{LOOPBACK}:{free_port()}"
    lines += [  # the later of two lines for one property counts
        f"{listeners},SASL_PLAINTEXT://{sasl_address}",
        f"{advertised},SASL_PLAINTEXT://{sasl_address}",
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256",
        f'listener.name.sasl_plaintext.plain.sasl.jaas.config={PLAIN} required user_premiere="{SECRET}";',
        f"listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={SCRAM} required;",
    ]
    properties.write_text("\n".join(lines))
    with start_kafka(folder, kafka_home, "apache") as address:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        user = UserScramCredentialUpsertion("premiere", info, SECRET.encode())
        admin = AdminClient({"bootstrap.servers": address})  # must not be deleted before it has answered
        for future in admin.alter_user_scram_credentials([user]).values():
            future.result()
        yield SecuredBroker(address, sasl_address)


def environment(secured: SecuredBroker, folder: Path, mechanism: str, password: str, redis_url: str) -> dict[str, str]:
    settings = {
        "BOOTSTRAP_SERVERS": secured.sasl,
        "REDIS_URL": redis_url,
        "DATA_DIR": str(folder / "data"),
        "METRICS_PORT": "0",
        "KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": "premiere",
        "KAFKA_SASL_PASSWORD": password,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREMIERE_", "KAFKA_"))}
    return {**inherited, **{f"PREMIERE_{name}": value for name, value in settings.items()}}


def premiere(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "infra.cli.main", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_commands_authenticate(secured: SecuredBroker, tmp_path: Path, redis_url: str, mechanism: str) -> None:
    env = environment(secured, tmp_path, mechanism, SECRET, redis_url)
    for arguments in (["topics", "--create"], ["status", "--json"], ["settings"]):
        done = premiere(env, *arguments)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr


@pytest.mark.extended  # test_acl.py runs flows with a password too
def test_flows_authenticate(secured: SecuredBroker, tmp_path: Path, redis_url: str) -> None:
    env = environment(secured, tmp_path, "SCRAM-SHA-256", SECRET, redis_url)
    assert premiere(env, "topics", "--create").returncode == 0
    logs = {flow: tmp_path / f"{flow}.log" for flow in FLOWS}
    flows = {
        flow: spawn([sys.executable, "-P", "-m", "infra.cli.main", "run", flow], logs[flow], env) for flow in FLOWS
    }
    try:
        deadline, groups = time.monotonic() + TIMEOUT_S, set[str]()
        admin = AdminClient({"bootstrap.servers": secured.plaintext})
        while not set(FLOWS) <= groups:  # a flow commits an offset as soon as it reads
            assert time.monotonic() < deadline, (groups, {flow: log_tail(log) for flow, log in logs.items()})
            assert all(flow.poll() is None for flow in flows.values()), [log_tail(log) for log in logs.values()]
            groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
            time.sleep(0.2)
    finally:
        stop(*flows.values())
    assert SECRET not in "".join(log.read_text() for log in logs.values())


@pytest.mark.parametrize("arguments", [["topics"], ["status"], ["run", "features"], ["run", "publish"]], ids=" ".join)
def test_wrong_password_fails_soon_with_one_error(
    secured: SecuredBroker, tmp_path: Path, redis_url: str, arguments: list[str]
) -> None:
    started = time.monotonic()
    done = premiere(environment(secured, tmp_path, "PLAIN", WRONG_SECRET, redis_url), *arguments)
    assert time.monotonic() - started < REFUSAL_LIMIT_S
    assert done.returncode == SettingsError.exit_code
    line = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "Authentication failed" in line
    assert "kafka_sasl_" in line
    assert WRONG_SECRET not in done.stdout + done.stderr


def test_invalid_client_settings_are_one_line(secured: SecuredBroker, tmp_path: Path, redis_url: str) -> None:
    env = environment(secured, tmp_path, "PLAIN", SECRET, redis_url)
    env |= {"PREMIERE_KAFKA_SECURITY_PROTOCOL": "sasl_ssl", "PREMIERE_KAFKA_SSL_CA_LOCATION": "/nowhere/ca.pem"}
    done = premiere(env, "topics")
    assert done.returncode == SettingsError.exit_code
    assert len(done.stderr.splitlines()) == 1
    assert "Kafka client settings are invalid" in done.stderr
    assert SECRET not in done.stderr
