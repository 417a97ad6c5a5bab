"""The set of withdrawn titles in a real Redis: differences, revisions, late writes, reconnects and large sets."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from features.redis_address import connect
from infra.local.embedded import start_redis
from streaming.stores.list_client import withdrawn_key, withdrawn_revision_key
from streaming.stores.redis_lists import Prediction, RedisSink, WithdrawnTitles
from streaming.stores.withdrawn_set import MAX_CHUNK_TITLES, WithdrawnSet


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_redis(tmp_path_factory.mktemp("withdrawn")) as url:
        yield url


@pytest.fixture
def client(url: str) -> Redis:
    """A client of a Redis without any key."""
    client = Redis.from_url(url, decode_responses=True)
    client.flushall()
    return client


def writer(url: str, log_identity: str = "log-1") -> WithdrawnSet:
    return WithdrawnSet(connect(url), log_identity)


def in_redis(client: Redis) -> set[str]:
    titles: Any = client.smembers(withdrawn_key())
    return set(titles)


def commands(client: Redis, name: str) -> int:
    """How often Redis has executed a command."""
    return int(client.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0))  # type: ignore[union-attr]


def test_changes_are_written_as_differences(client: Redis, url: str) -> None:
    withdrawn = writer(url)
    withdrawn.write(frozenset("abc"), 5)
    scans = commands(client, "sscan")
    client.sadd(withdrawn_key(), "added by hand")
    for titles, revision in (("abcd", 6), ("bcd", 7), ("bef", 8)):
        withdrawn.write(frozenset(titles), revision)
        assert in_redis(client) == {*titles, "added by hand"}
    assert commands(client, "sscan") == scans
    assert client.hgetall(withdrawn_revision_key()) == {"log": "log-1", "revision": "8", "complete": "8"}


def test_late_write_of_an_older_set_changes_nothing(client: Redis, url: str) -> None:
    stalled, active = writer(url), writer(url)
    stalled.write(frozenset("a"), 5)
    active.write(frozenset("a"), 5)
    active.write(frozenset("ab"), 9)
    stalled.write(frozenset(), 6)  # a title that was launched again, and withdrawn again at 9
    assert in_redis(client) == {"a", "b"}
    writer(url).write(frozenset("x"), 8)  # a whole set
    assert in_redis(client) == {"a", "b"}
    assert client.hgetall(withdrawn_revision_key()) == {"log": "log-1", "revision": "9", "complete": "9"}


def test_stalled_writer_that_catches_up_writes_its_later_changes(client: Redis, url: str) -> None:
    stalled, active = writer(url), writer(url)
    stalled.write(frozenset("a"), 5)
    active.write(frozenset("bc"), 9)
    stalled.write(frozenset("ab"), 7)
    assert in_redis(client) == {"b", "c"}
    stalled.write(frozenset("bcd"), 12)
    assert in_redis(client) == {"b", "c", "d"}


def test_restart_replaces_the_set_of_an_earlier_process(client: Redis, url: str) -> None:
    writer(url).write(frozenset("abc"), 5)
    writer(url).write(frozenset("cd"), 9)
    assert in_redis(client) == {"c", "d"}


def test_set_of_another_log_is_replaced(client: Redis, url: str) -> None:
    writer(url, "old log").write(frozenset("ab"), 900)
    new = writer(url, "new log")
    new.write(frozenset("c"), 1)
    assert in_redis(client) == {"c"}
    new.write(frozenset("cd"), 2)
    assert in_redis(client) == {"c", "d"}


def test_difference_writes_the_whole_set_if_redis_lost_a_change(client: Redis, url: str) -> None:
    withdrawn = writer(url)
    withdrawn.write(frozenset("a"), 5)
    client.hset(withdrawn_revision_key(), "complete", "4")  # another process ended while it wrote the set
    client.srem(withdrawn_key(), "a")
    withdrawn.write(frozenset("ab"), 6)
    assert in_redis(client) == {"a", "b"}
    client.flushall()
    withdrawn.write(frozenset("abc"), 7)
    assert in_redis(client) == {"a", "b", "c"}


@pytest.mark.parametrize("size", [MAX_CHUNK_TITLES, 10 * MAX_CHUNK_TITLES + 1])
def test_large_set_is_written_and_removed_in_chunks(client: Redis, url: str, size: int) -> None:
    names = [f"{n}-" + "🎬" * 60 for n in range(size)]  # ids of the greatest length in bytes
    withdrawn = writer(url)
    withdrawn.write(frozenset(names), 1)
    assert in_redis(client) == set(names)
    withdrawn.write(frozenset(names[:7]), 2)
    assert in_redis(client) == set(names[:7])
    withdrawn.write(frozenset(names), 3)
    assert in_redis(client) == set(names)
    withdrawn.write(frozenset(), 4)
    assert not client.exists(withdrawn_key())


class ObservedRedis(WithdrawnSet):
    """Notes what a reader sees after each call of the script, and fails at one of them."""

    def __init__(self, url: str, fail_at: int | None = None) -> None:
        super().__init__(connect(url), "log-1")
        self.reader, self.fail_at, self.seen = Redis.from_url(url, decode_responses=True), fail_at, list[set[str]]()

    def _update(self, *arguments: Any, **more: Any) -> str:
        if len(self.seen) == self.fail_at:
            raise ConnectionError("the process ends here")
        answer = super()._update(*arguments, **more)
        self.seen.append(in_redis(self.reader))
        return answer


def test_title_that_stays_withdrawn_is_never_missing(client: Redis, url: str) -> None:
    staying = {f"stays-{n}" for n in range(5)}
    writer(url).write(frozenset({*staying, *(f"old-{n}" for n in range(3000))}), 1)
    withdrawn = ObservedRedis(url)
    withdrawn.write(frozenset({*staying, *(f"new-{n}" for n in range(3000))}), 2)
    assert len(withdrawn.seen) > 6
    assert all(staying <= seen for seen in withdrawn.seen)


def test_interrupted_whole_write_is_completed_by_the_next_process(client: Redis, url: str) -> None:
    titles = frozenset(f"t{n}" for n in range(3000))
    other = writer(url)
    other.write(frozenset({"a"}), 1)
    with pytest.raises(ConnectionError):
        ObservedRedis(url, fail_at=2).write(titles, 5)
    assert client.hgetall(withdrawn_revision_key()) == {"log": "log-1", "revision": "5", "complete": "1"}
    other.write(titles - {"t7"}, 6)  # a change of another process: it also needs what the interrupted one left out
    assert in_redis(client) == titles - {"t7"}
    writer(url).write(titles, 7)
    assert in_redis(client) == titles


def test_set_is_written_again_after_redis_lost_it(tmp_path: Path) -> None:
    """Redis restarts without its last second. The next write of any kind repeats the set."""
    user = f"user-{uuid.uuid4().hex[:8]}"
    with start_redis(tmp_path / "first") as url:
        partition = RedisSink(url).build_part("lists", "0", None)
        partition.write_batch([[WithdrawnTitles(frozenset("ab"), 5)]])
        client = Redis.from_url(url, decode_responses=True)
        client.delete(withdrawn_key(), withdrawn_revision_key())
        partition.write_batch([[Prediction(user, {0: ["a"]}, 0, (1, 1, 0, 0), 1, 0)]])
        assert in_redis(client) == set()  # the same connection: nothing is written twice
        client.client_kill_filter(_type="normal", skipme=True)
        partition.write_batch([[Prediction(user, {0: ["a"]}, 0, (2, 2, 0, 0), 1, 0)]])
        assert in_redis(client) == {"a", "b"}
        scans = commands(client, "sscan")
        partition.write_batch([[Prediction(user, {0: ["a"]}, 0, (3, 3, 0, 0), 1, 0)]])
        assert commands(client, "sscan") == scans
