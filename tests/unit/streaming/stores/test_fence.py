"""Redis refuses lists, erasure markers and withdrawals of a process that was replaced."""

from collections.abc import Iterator

import pytest
from redis import Redis

from infra.local.embedded import start_redis
from streaming.errors import OwnedElsewhereError
from streaming.kafka.ownership import SOLE_PROCESS, Owner
from streaming.stores.list_client import key, owners_key, read, withdrawn_key
from streaming.stores.redis_lists import ErasedUser, Prediction, RedisSink, RedisWrite, WithdrawnTitles
from tests.support.ownership import FixedOwner


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_redis(tmp_path_factory.mktemp("fence")) as url:
        yield url


@pytest.fixture
def client(url: str) -> Redis:
    """A client of a Redis without any key."""
    client = Redis.from_url(url, decode_responses=True)
    client.flushall()
    return client


def write(url: str, owner: Owner, *writes: RedisWrite, log_identity: str = "log") -> None:
    RedisSink(url, log_identity=log_identity, owner=owner).build_part("lists", "0", None).write_batch([list(writes)])


def lists(title: str, appended: int = 1) -> Prediction:
    return Prediction("ann", {0: [title]}, 1, (appended, appended, 1, 0), 1, 0)


@pytest.mark.parametrize("log_identity", ["log", "older log"])
def test_replaced_process_overwrites_nothing(client: Redis, url: str, log_identity: str) -> None:
    older, newer = FixedOwner(7), FixedOwner(8)
    write(url, older, lists("old"), log_identity=log_identity)
    write(url, newer, lists("new", 2), WithdrawnTitles(frozenset({"gone"}), 5))
    for late in (lists("old", 9), WithdrawnTitles(frozenset(), 9), ErasedUser("ann", 9)):
        with pytest.raises(OwnedElsewhereError):
            write(url, older, late, log_identity=log_identity)
    assert (read(client, "ann"), client.smembers(withdrawn_key())) == (["new"], {"gone"})
    assert client.hget(owners_key(), "0") == "8"
    write(url, newer, lists("newest", 3))
    assert read(client, "ann") == ["newest"]


@pytest.mark.parametrize("log_identity", ["log", "older log"])
def test_replaced_process_restores_no_erased_user(client: Redis, url: str, log_identity: str) -> None:
    older, newer = FixedOwner(7), FixedOwner(8)
    write(url, older, lists("seen by ann"), log_identity=log_identity)
    write(url, newer, ErasedUser("ann", 5))
    before = client.hgetall(key("ann"))
    with pytest.raises(OwnedElsewhereError):
        write(url, older, lists("seen by ann", 9), log_identity=log_identity)
    assert client.hgetall(key("ann")) == before
    assert read(client, "ann") == []


def test_new_log_is_served_by_its_newer_owner(client: Redis, url: str) -> None:
    write(url, FixedOwner(7), lists("old", 99), log_identity="old broker")
    write(url, FixedOwner(8), lists("new", 1), log_identity="new broker")
    assert read(client, "ann") == ["new"]


def test_each_worker_has_its_own_number(client: Redis, url: str) -> None:
    second = FixedOwner(3)
    second.worker = 1
    write(url, FixedOwner(8), lists("first"))
    write(url, second, lists("second", 2))
    assert read(client, "ann") == ["second"]
    assert client.hgetall(owners_key()) == {"0": "8", "1": "3"}


def test_sole_process_has_no_number(client: Redis, url: str) -> None:
    write(url, FixedOwner(8), lists("a"))
    write(url, SOLE_PROCESS, lists("b", 2))
    assert (read(client, "ann"), client.hget(owners_key(), "0")) == (["b"], "8")


def test_process_that_knows_its_takeover_sends_nothing(client: Redis, url: str) -> None:
    owner = FixedOwner(1)
    owner.replaced = True
    with pytest.raises(OwnedElsewhereError):
        write(url, owner, lists("a"))
    assert client.keys() == []
