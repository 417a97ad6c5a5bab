"""Apache Kafka with an authorizer: the commands of docs/security.md permit each client its topics and no others."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.local.embedded import LOOPBACK, free_port, start_kafka
from infra.local.processes import log_tail, spawn, stop
from infra.local.supervisor import FLOWS
from infra.topics import create_topics
from streaming.kafka.client import consumer_config, producer_config
from streaming.topics import topics
from tests.support.docs import code_block
from tests.support.paths import ROOT

PASSWORD: Final = "secret"
START_TIMEOUT_S: Final = 180.0  # for the start of several interpreters on a busy machine
PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
REFUSALS: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
WRITES: Final = {
    "events": {"user-events"},
    "catalog": {"title-launches"},
    "privacy": {"erasure-requests"},
    "rights": {"title-withdrawals"},
    "features": {"activity", "dead-letters", "owners"},
    "titles": {"activity", "titles", "dead-letters", "owners"},
    "learn": {"model-versions", "owners"},
    "publish": {"owners"},
}
READS: Final = {
    "events": set[str](),
    "catalog": set[str](),
    "privacy": set[str](),
    "rights": set[str](),
    "features": {"user-events", "erasure-requests", "owners"},
    "titles": {"title-launches", "title-withdrawals", "titles", "owners"},
    "learn": {"activity", "model-versions", "owners"},
    "publish": {"activity", "titles", "model-versions", "owners"},
}


class SecuredBroker(NamedTuple):
    """The addresses of a broker's two listeners."""

    admin: str
    sasl: str


@pytest.fixture(scope="module")
def secured(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """A broker with the documented permissions; clients of its plaintext listener are administrators."""
    folder = tmp_path_factory.mktemp("authorizer")
    with start_kafka(folder, kafka_home, "apache"):
        pass
    properties = folder / "server.properties"
    lines = properties.read_text().splitlines()
    (listeners,) = (line for line in lines if line.startswith("listeners="))
    (advertised,) = (line for line in lines if line.startswith("advertised.listeners="))
    sasl = f"{LOOPBACK}:{free_port()}"
    users = " ".join(f'user_{user}="{PASSWORD}"' for user in WRITES)
    lines += [  # the later of two lines for one property counts
        f"{listeners},SASL_PLAINTEXT://{sasl}",
        f"{advertised},SASL_PLAINTEXT://{sasl}",
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN",
        f"listener.name.sasl_plaintext.plain.sasl.jaas.config={PLAIN} required {users};",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS",
    ]
    properties.write_text("\n".join(lines))
    with start_kafka(folder, kafka_home, "apache") as address:
        create_topics({"bootstrap.servers": address}, topics())
        commands = code_block((ROOT / "docs" / "security.md").read_text(), "acl()", "sh")
        environment = {"PATH": f"{kafka_home / 'bin'}:/usr/local/bin:/usr/bin:/bin", "ADMIN_ADDRESS": address}
        done = subprocess.run(["bash", "-ec", commands], env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        yield SecuredBroker(address, sasl)


def config(address: str, user: str) -> dict[str, str]:
    return {
        "bootstrap.servers": address, "security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN",
        "sasl.username": user, "sasl.password": PASSWORD,
    }  # fmt: skip


def may_write(address: str, user: str, topic: str) -> bool:
    reported: list[KafkaError] = []
    settings = {
        **producer_config(config(address, user)),
        "enable.idempotence": False,
    }  # which needs one more permission
    settings["delivery.report.only.error"] = False
    producer, errors = Producer({**settings, "error_cb": reported.append}), list[KafkaError | None]()
    producer.produce(topic, b"{}", b"key", on_delivery=lambda error, _: errors.append(error))
    producer.flush(60)
    assert errors, reported
    (error,) = errors
    assert error is None or error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._UNKNOWN_TOPIC), error
    return error is None


def may_read(address: str, user: str, topic: str) -> bool:
    consumer = Consumer({**consumer_config(config(address, user), user), "error_cb": lambda _: None})
    try:
        described = consumer.list_topics(topic, timeout=60).topics[topic].error
        if described is not None:
            assert described.code() in REFUSALS, described
            return False
        consumer.assign([TopicPartition(topic, 0, 0)])
        for message in (found for _ in range(100) for found in consumer.consume(1, 0.2)):
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                consumer.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
                return True
            assert error.code() in REFUSALS, error
            return False
    finally:
        consumer.close()
    raise AssertionError(f"no answer for {user} on {topic}")


@pytest.mark.parametrize("user", WRITES)
def test_client_can_use_its_topics_and_no_others(secured: SecuredBroker, user: str) -> None:
    names = [topic.name for topic in topics()]
    assert {name for name in names if may_write(secured.sasl, user, name)} == WRITES[user]
    assert {name for name in names if may_read(secured.sasl, user, name)} == READS[user]


def test_each_flow_runs_with_its_permissions(secured: SecuredBroker, tmp_path: Path, redis_url: str) -> None:
    settings = {
        "BOOTSTRAP_SERVERS": secured.sasl, "REDIS_URL": redis_url, "DATA_DIR": str(tmp_path / "data"),
        "METRICS_PORT": "0", "KAFKA_SECURITY_PROTOCOL": "sasl_plaintext", "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_PASSWORD": PASSWORD,
    }  # fmt: skip
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREMIERE_", "KAFKA_"))}
    env = {**inherited, **{f"PREMIERE_{name}": value for name, value in settings.items()}}
    logs = {flow: tmp_path / f"{flow}.log" for flow in FLOWS}
    command = [sys.executable, "-P", "-m", "infra.cli.main", "run"]
    flows = {flow: spawn([*command, flow], logs[flow], {**env, "PREMIERE_KAFKA_SASL_USERNAME": flow}) for flow in FLOWS}
    try:
        deadline, groups = time.monotonic() + START_TIMEOUT_S, set[str]()
        admin = AdminClient({"bootstrap.servers": secured.admin})
        while not set(FLOWS) <= groups:  # a flow commits an offset as soon as it reads
            assert time.monotonic() < deadline, (groups, {flow: log_tail(log) for flow, log in logs.items()})
            assert all(flow.poll() is None for flow in flows.values()), [log_tail(log) for log in logs.values()]
            groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
            time.sleep(0.2)
    finally:
        stop(*flows.values())
    assert "authoriz" not in "".join(log.read_text() for log in logs.values()).lower()
