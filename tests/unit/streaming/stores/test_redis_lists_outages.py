"""The sink waits while a real Redis cannot write, and continues afterwards: each fault is set, seen, and removed."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from redis import Redis

from infra.local.embedded import free_port, redis_answers, redis_server, start_redis
from streaming.stores.list_client import key, read, withdrawn_key
from streaming.stores.redis_lists import ErasedUser, Prediction, RedisSink, WithdrawnTitles
from streaming.stores.retry import RedisRefusedError, RedisUnavailableError

USER = "user-1"
DEAD_HOST = ("127.0.0.1", 1)

Act = Callable[[Redis], object]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Redis]:
    """A client of a Redis that only this test uses."""
    with start_redis(tmp_path / "redis") as url, Redis.from_url(url, decode_responses=True) as client:
        yield client


def url_of(client: Redis) -> str:
    settings = client.connection_pool.connection_kwargs
    return f"redis://{settings['host']}:{settings['port']}/0"


def prediction(title: str, offset: int) -> Prediction:
    return Prediction(USER, {0: [title]}, version=0, revision=(offset, offset, 0, 0), events=1, event_ms=0)


def wait_for(condition: Callable[[], bool], thread: threading.Thread) -> None:
    """Wait until a condition holds that the thread brings about."""
    while not condition():
        assert thread.is_alive()
        time.sleep(0.02)


def retries() -> float:
    return REGISTRY.get_sample_value("premiere_redis_retries_total") or 0.0


def replicate_without_primary(client: Redis) -> None:
    client.config_set("replica-serve-stale-data", "no")
    client.replicaof(*DEAD_HOST)


FAULTS: dict[str, tuple[Act, Act, str]] = {  # set the fault, remove it, part of the log message
    "OOM": (
        lambda client: client.config_set("maxmemory", 1),
        lambda client: client.config_set("maxmemory", 0),
        "is out of memory",
    ),
    "READONLY": (lambda client: client.replicaof(*DEAD_HOST), lambda client: client.replicaof("NO", "ONE"), "is read"),
    "MASTERDOWN": (replicate_without_primary, lambda client: client.replicaof("NO", "ONE"), "has lost its primary"),
    "NOREPLICAS": (
        lambda client: client.config_set("min-replicas-to-write", 1),
        lambda client: client.config_set("min-replicas-to-write", 0),
        "has too few replicas",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_sink_waits_while_redis_cannot_write(client: Redis, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    set_fault, remove_fault, message = FAULTS[fault]
    client.config_set("maxmemory-policy", "noeviction")
    partition = RedisSink(url_of(client)).build_part("lists", "0", None)
    partition.write_batch([[prediction("a", 1), WithdrawnTitles(frozenset({"x"}), 1)]])
    set_fault(client)
    before = retries()
    later = [prediction("b", 2), WithdrawnTitles(frozenset({"y"}), 2)]
    thread = threading.Thread(target=partition.write_batch, args=([later],))
    thread.start()
    wait_for(lambda: retries() >= before + 2, thread)
    remove_fault(client)
    thread.join()
    partition.close()
    assert (read(client, USER), client.smembers(withdrawn_key())) == (["b"], {"y"})
    assert [message in text for text in caplog.messages] == [True, False]
    assert "answers again" in caplog.messages[1]


def test_sink_waits_while_redis_is_loading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    client = Redis.from_url(url, decode_responses=True)
    command = [redis_server(), "--port", str(port), "--dir", str(tmp_path), "--rdbcompression", "no"]
    partition = RedisSink(url).build_part("lists", "0", None)
    with running(command) as server:
        while not redis_answers(url):
            assert server.poll() is None
        partition.write_batch([[prediction("a", 1)]])
        client.mset({f"key-{n}": "x" * 1_000_000 for n in range(30)})  # it answers after each 2 MB that it has loaded
        client.shutdown(save=True)
        server.wait()
    with running([*command, "--key-load-delay", "200000"]):  # us
        partition.write_batch([[prediction("b", 2)]])
        assert read(client, USER) == ["b"]
        partition.close()
        client.close()
    assert any("is loading its data" in text for text in caplog.messages)
    assert "answers again" in caplog.messages[-1]


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_erasure_is_written_again_after_redis_lost_it(tmp_path: Path) -> None:
    """Redis restarts with what it saved before the erasure, and then without any data."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    client = Redis.from_url(url, decode_responses=True)
    command = [redis_server(), "--port", str(port), "--dir", str(tmp_path)]
    partition = RedisSink(url).build_part("lists", "0", None)
    other = replace(prediction("b", 1), user="user-2")
    with running(command):
        wait_until_redis_answers(url)
        partition.write_batch([[prediction("a", 1), replace(prediction("default", 1), user=None)]])
        client.save()
        partition.write_batch([[ErasedUser(USER, 5), WithdrawnTitles(frozenset({"x"}), 1)]])
    with running(command):
        wait_until_redis_answers(url)
        assert read(client, USER) == ["a"]
        partition.write_batch([[other]])
        assert (read(client, USER), client.smembers(withdrawn_key())) == (["default"], {"x"})
        assert set(client.hgetall(key(USER))) == {"log", "revision"}  # type: ignore[arg-type]
        partition.write_batch([[prediction("a", 4)]])
        assert read(client, USER) == ["default"]
        client.save()
    (tmp_path / "dump.rdb").unlink()
    with running(command):
        wait_until_redis_answers(url)
        partition.write_batch([[other]])
        assert client.smembers(withdrawn_key()) == {"x"}
        partition.write_batch([[prediction("again", 6)]])  # the user has returned
        client.client_kill_filter(_type="normal", skipme=True)
        partition.write_batch([[other]])
        assert read(client, USER) == ["again"]
    partition.close()
    client.close()


def wait_until_redis_answers(url: str) -> None:
    while not redis_answers(url):
        time.sleep(0.02)


def test_long_lack_of_memory_ends_the_flow_with_its_remedy(client: Redis) -> None:
    client.config_set("maxmemory", 1)
    partition = RedisSink(url_of(client), max_outage_s=0.2).build_part("lists", "0", None)
    with pytest.raises(RedisUnavailableError, match="raise its maxmemory"):
        partition.write_batch([[prediction("a", 1)]])
    partition.close()


def test_sink_ends_at_once_if_redis_refuses_a_write(client: Redis) -> None:
    client.set(key(USER), "text of another program")
    before = retries()
    for answer in ("WRONGTYPE", "PREMIERE_REDIS_URL"):
        partition = RedisSink(url_of(client), max_outage_s=0.5).build_part("lists", "0", None)
        with pytest.raises(RedisRefusedError, match=answer):
            partition.write_batch([[prediction("a", 1)]])
        partition.close()
        client.config_set("requirepass", "secret")
    assert retries() == before
