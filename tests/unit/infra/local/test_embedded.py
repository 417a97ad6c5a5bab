"""The embedded services come up, are real, and leave nothing behind, however their parent ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from infra.errors import ServiceError
from infra.local import embedded
from infra.local.embedded import kafka_answers, redis_answers, start_kafka, start_redis
from infra.local.processes import spawn, stop
from infra.monitor.lag import lag
from infra.topics import create, identity
from streaming.kafka.source import read_all
from streaming.topics import Topic

PATIENCE = 20.0  # seconds to wait for something that takes milliseconds


def _eventually(gone: list[int]) -> bool:
    """Whether all these processes are gone within bounds."""
    deadline = time.monotonic() + PATIENCE
    while any(_alive(pid) for pid in gone) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(_alive(pid) for pid in gone)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_record_comes_back_from_the_broker(kafka: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(topic, b"value", b"key", headers=[("h", b"1")])
    assert producer.flush(PATIENCE) == 0
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    message = consumer.poll(PATIENCE)
    assert message is not None
    assert (message.key(), message.value(), message.headers()) == (b"key", b"value", [("h", b"1")])
    consumer.close()


def test_redis_keeps_what_it_is_given(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.set("test-embedded", "kept", ex=60)
        assert client.get("test-embedded") == "kept"


def test_services_are_gone_after_the_context(tmp_path: Path) -> None:
    with start_kafka(tmp_path) as address, start_redis(tmp_path) as url:
        assert kafka_answers(address)
        assert redis_answers(url)
    assert not kafka_answers(address)
    assert not redis_answers(url)


def test_the_embedded_broker_is_another_log_at_each_start(tmp_path: Path) -> None:
    seen = set()
    for _ in range(2):
        with start_kafka(tmp_path) as address:
            create({"bootstrap.servers": address}, [Topic("t", 1, {})])
            seen.add(identity({"bootstrap.servers": address}, ["t"]))
    assert len(seen) == 2


def test_services_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
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
    assert _eventually(gone=children)


def test_a_broker_that_cannot_start_says_so_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    liar = tmp_path / "tansu"
    liar.write_text("#!/bin/sh\necho no memory left >&2; exit 3\n")
    liar.chmod(0o755)
    monkeypatch.setattr(embedded, "_packaged", lambda package, name: liar)
    with pytest.raises(ServiceError, match=r"stopped at once \(exit 3\)[\s\S]*no memory left"), start_kafka(tmp_path):
        pass


def test_a_service_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "redis-server"
    silent.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}; exec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setattr(embedded, "_packaged", lambda package, name: silent)
    monkeypatch.setattr(embedded, "PATIENCE", 0.5)
    with pytest.raises(ServiceError, match="did not answer"), start_redis(tmp_path):
        pass
    assert _eventually(gone=[int((tmp_path / "pid").read_text())])


def test_a_folder_that_is_no_kafka_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="KAFKA_HOME"), start_kafka(tmp_path, kafka_home=tmp_path):
        pass


def test_stopping_kills_what_does_not_want_to_stop(tmp_path: Path) -> None:
    child = spawn(["bash", "-c", "trap '' TERM; sleep 600 & echo $!; wait; wait"], tmp_path / "log")
    while not (tmp_path / "log").read_text():
        time.sleep(0.01)
    grandchild = int((tmp_path / "log").read_text())
    stop(child, patience=0.2)
    assert child.returncode == -signal.SIGKILL
    assert _eventually(gone=[child.pid, grandchild])
    assert os.getpid() != child.pid


def test_apache_kafka_goes_on_with_its_topics_records_and_groups(tmp_path: Path, kafka_home: Path) -> None:
    seen = set()
    for count in (1, 2):
        with start_kafka(tmp_path, kafka_home) as address:
            config = {"bootstrap.servers": address}
            create(config, [Topic("t", 1, {})])
            producer = Producer(config)
            producer.produce("t", str(count).encode())
            assert producer.flush(PATIENCE) == 0
            (before,) = lag(config, {"g": ("t",)})
            consumer = Consumer({**config, "group.id": "g", "enable.auto.commit": False})
            consumer.commit(offsets=[TopicPartition("t", 0, count)], asynchronous=False)
            consumer.close()
            assert [m.value for m in read_all(config, "t")] == [b"1", b"2"][:count]
            assert before.committed == (None if count == 1 else 1)
            seen.add((address, identity(config, ["t"])))
    assert len(seen) == 1
