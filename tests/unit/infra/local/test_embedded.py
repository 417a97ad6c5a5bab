"""The embedded services start, work and leave no process behind, however their parent ends."""

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from infra.errors import ServiceError
from infra.local import embedded
from infra.local.embedded import (
    check_services,
    kafka_answers,
    redis_answers,
    redis_server,
    start_kafka,
    start_redis,
)
from infra.monitor.lag import read_lag
from infra.topics import create_topics, log_identity
from streaming.kafka.source import read_all
from streaming.topics import Topic
from tests.support.processes import all_end

TIMEOUT_S = 20.0  # for steps that take milliseconds


def test_broker_returns_produced_record(kafka: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(topic, b"value", b"key", headers=[("h", b"1")])
    assert producer.flush(TIMEOUT_S) == 0
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(TIMEOUT_S)
    assert message is not None
    assert (message.key(), message.value(), message.headers()) == (b"key", b"value", [("h", b"1")])
    consumer.close()


def test_redis_with_password_refuses_strangers_and_commands_that_write_files(tmp_path: Path) -> None:
    refused = ("CONFIG GET dir", "SAVE", "BGSAVE", "DEBUG SLEEP 0", "SLAVEOF no one", "REPLICAOF no one", "MODULE LIST")
    with start_redis(tmp_path, password="secret-of-test") as url, redis.Redis.from_url(url) as client:
        stranger = redis.Redis.from_url(url.replace("default:secret-of-test@", ""))
        with pytest.raises(redis.AuthenticationError):
            stranger.get("k")
        assert client.set("k", "v")
        for command in refused:
            with pytest.raises(redis.ResponseError, match="unknown command"):
                client.execute_command(command)
        config = tmp_path / "redis.conf"
        assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_redis_returns_stored_value(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.set("test-embedded", "kept", ex=60)
        assert client.get("test-embedded") == "kept"


def test_service_that_ends_is_noticed(tmp_path: Path) -> None:
    with start_redis(tmp_path, password="secret") as url:
        check_services()
        client = Path(redis_server()).with_name("redis-cli")
        if client.exists():  # version 6.2 sends an empty user name if the URL has none, and is refused
            asked = subprocess.run([client, "-u", url, "ping"], capture_output=True, text=True)
            assert asked.stdout == "PONG\n"
        ((_, process),) = [one for one in embedded._running if one[0] == "The Redis"][-1:]
        process.kill()
        process.wait()
        with pytest.raises(ServiceError, match=r"The Redis has ended \(killed by signal 9\)"):
            check_services()
    check_services()


def test_services_stop_with_their_context(tmp_path: Path) -> None:
    with start_kafka(tmp_path) as address, start_redis(tmp_path) as url:
        assert kafka_answers(address)
        assert redis_answers(url)
    assert not kafka_answers(address)
    assert not redis_answers(url)


def test_embedded_broker_has_new_log_identity_at_each_start(tmp_path: Path) -> None:
    seen = set()
    for _ in range(2):
        with start_kafka(tmp_path) as address:
            create_topics({"bootstrap.servers": address}, [Topic("t", 1, {})])
            seen.add(log_identity({"bootstrap.servers": address}, ["t"]))
    assert len(seen) == 2


def test_services_end_when_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from infra.local.embedded import *\n"
        "with start_kafka(Path(sys.argv[1])) as k, start_redis(Path(sys.argv[1])) as r:\n"
        "    print(k, r, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        address, url = parent.stdout.readline().split()
        children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        assert len(children) == 2
        assert kafka_answers(address)
        assert redis_answers(url)
        parent.send_signal(signal.SIGKILL)
    assert all_end(children)


def test_broker_startup_error_contains_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = tmp_path / "tansu"
    failing.write_text("#!/bin/sh\necho no memory left >&2; exit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(embedded, "_find_binary", lambda package, name: failing)
    with pytest.raises(ServiceError, match=r"code 3[\s\S]*no memory left"), start_kafka(tmp_path):
        pass


def test_service_that_never_answers_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "redis-server"
    silent.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}; exec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setenv("REDIS_SERVER", str(silent))
    monkeypatch.setattr(embedded, "STARTUP_TIMEOUT_S", 0.5)
    with pytest.raises(ServiceError, match="did not answer"), start_redis(tmp_path):
        pass
    assert all_end([int((tmp_path / "pid").read_text())])


def test_invalid_kafka_home_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="KAFKA_HOME"), start_kafka(tmp_path, kafka_home=tmp_path):
        pass


def test_apache_kafka_keeps_topics_records_and_groups(tmp_path: Path, kafka_home: Path) -> None:
    seen = set()
    for count in (1, 2):
        with start_kafka(tmp_path, kafka_home) as address:
            config = {"bootstrap.servers": address}
            create_topics(config, [Topic("t", 1, {})])
            producer = Producer(config)
            producer.produce("t", str(count).encode())
            assert producer.flush(TIMEOUT_S) == 0
            (before,) = read_lag(config, {"g": ("t",)})
            consumer = Consumer({**config, "group.id": "g", "enable.auto.commit": False})
            consumer.commit(offsets=[TopicPartition("t", 0, count)], asynchronous=False)
            consumer.close()
            assert [m.value for m in read_all(config, "t")] == [b"1", b"2"][:count]
            assert before.committed_offset == (None if count == 1 else 1)
            seen.add((address, log_identity(config, ["t"])))
    assert len(seen) == 1
