"""Apache Kafka behind a password: the settings reach every client, a wrong one is said soon, and none is ever shown."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from infra.local.embedded import HOST, free_port, start_kafka
from infra.local.processes import spawn, stop, tail
from infra.local.supervisor import FLOWS

SECRET: Final = "correct-horse-battery"
WRONG: Final = "staple-of-another"
PATIENCE: Final = 90.0  # seconds: interpreters start on a machine that does other things too
BOUND: Final = 60.0  # seconds within which a wrong password is said; no more than a start of Python and 15 s
PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"


class Guarded(NamedTuple):
    """A broker with two doors."""

    plaintext: str
    sasl: str


@pytest.fixture(scope="module")
def guarded(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Its second start, with a listener more: the first one formats the folder."""
    folder = tmp_path_factory.mktemp("guarded")
    with start_kafka(folder, kafka_home, "apache"):
        pass
    properties = folder / "server.properties"
    lines = properties.read_text().splitlines()
    (listeners,) = (line for line in lines if line.startswith("listeners="))
    (advertised,) = (line for line in lines if line.startswith("advertised.listeners="))
    door = f"{HOST}:{free_port()}"
    lines += [  # of two lines the later one counts
        f"{listeners},SASL_PLAINTEXT://{door}",
        f"{advertised},SASL_PLAINTEXT://{door}",
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256",
        f'listener.name.sasl_plaintext.plain.sasl.jaas.config={PLAIN} required user_premiere="{SECRET}";',
        f"listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={SCRAM} required;",
    ]
    properties.write_text("\n".join(lines))
    with start_kafka(folder, kafka_home, "apache") as address:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        user = UserScramCredentialUpsertion("premiere", info, SECRET.encode())
        admin = AdminClient({"bootstrap.servers": address})  # kept until it has answered
        for future in admin.alter_user_scram_credentials([user]).values():
            future.result()
        yield Guarded(address, door)


def environment(guarded: Guarded, folder: Path, mechanism: str, password: str, redis_url: str) -> dict[str, str]:
    told = {
        "BOOTSTRAP_SERVERS": guarded.sasl,
        "REDIS_URL": redis_url,
        "DATA_DIR": str(folder / "data"),
        "METRICS_PORT": "0",
        "KAFKA_SECURITY_PROTOCOL": "sasl_plaintext",
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": "premiere",
        "KAFKA_SASL_PASSWORD": password,
    }
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREMIERE_", "KAFKA_"))}
    return {**own, **{f"PREMIERE_{name}": value for name, value in told.items()}}


def premiere(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.cli.main", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_the_right_password_opens_for_commands(
    guarded: Guarded, tmp_path: Path, redis_url: str, mechanism: str
) -> None:
    env = environment(guarded, tmp_path, mechanism, SECRET, redis_url)
    for words in (["topics", "--create"], ["status", "--json"], ["settings"]):
        done = premiere(env, *words)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr


def test_the_right_password_opens_for_every_flow(guarded: Guarded, tmp_path: Path, redis_url: str) -> None:
    env = environment(guarded, tmp_path, "SCRAM-SHA-256", SECRET, redis_url)
    assert premiere(env, "topics", "--create").returncode == 0
    logs = {flow: tmp_path / f"{flow}.log" for flow in FLOWS}
    flows = {flow: spawn([sys.executable, "-m", "infra.cli.main", "run", flow], logs[flow], env) for flow in FLOWS}
    try:
        late, there = time.monotonic() + PATIENCE, set[str]()
        admin = AdminClient({"bootstrap.servers": guarded.plaintext})
        while not set(FLOWS) <= there:  # a flow commits where it stands once it reads
            assert time.monotonic() < late, (there, {flow: tail(log) for flow, log in logs.items()})
            assert all(flow.poll() is None for flow in flows.values()), [tail(log) for log in logs.values()]
            there = {group.group_id for group in admin.list_consumer_groups().result().valid}
            time.sleep(0.2)
    finally:
        stop(*flows.values())
    assert SECRET not in "".join(log.read_text() for log in logs.values())


@pytest.mark.parametrize("words", [["topics"], ["status"], ["run", "features"], ["run", "publish"]], ids=" ".join)
def test_a_wrong_password_is_one_sentence_within_bounds(
    guarded: Guarded, tmp_path: Path, redis_url: str, words: list[str]
) -> None:
    began = time.monotonic()
    done = premiere(environment(guarded, tmp_path, "PLAIN", WRONG, redis_url), *words)
    assert time.monotonic() - began < BOUND
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "Authentication failed" in sentence
    assert "kafka_sasl_" in sentence
    assert WRONG not in done.stdout + done.stderr


def test_settings_that_no_client_takes_are_one_sentence(guarded: Guarded, tmp_path: Path, redis_url: str) -> None:
    env = environment(guarded, tmp_path, "PLAIN", SECRET, redis_url)
    env |= {"PREMIERE_KAFKA_SECURITY_PROTOCOL": "sasl_ssl", "PREMIERE_KAFKA_SSL_CA_LOCATION": "/nowhere/ca.pem"}
    done = premiere(env, "topics")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "The settings of Kafka's clients cannot be used" in done.stderr
    assert SECRET not in done.stderr
