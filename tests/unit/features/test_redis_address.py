"""Feast and the lists use the same Redis, whatever the form of its URL."""

from typing import Any

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from redis import Redis

from features.redis_address import TIMEOUTS, RedisAddressError, connect, feast_online_store, parse

EXAMPLE = r"redis://host:6379/0|choose another"


def feast_client(url: str) -> Redis:
    """The client that Feast makes of its settings."""
    client: Any = RedisOnlineStore()._get_client(RedisOnlineStoreConfig(**feast_online_store(url, with_password=True)))
    assert isinstance(client, Redis)
    return client


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:7000/3",
        "redis://h:6379?db=5",
        "redis://h:6379/0?password=hunter2",
        "redis://me:p%40ss%3Aw%2Frd%23%25%3D$x@h",
        "redis://:12345@h",
        "redis://:1e3@h",
        "redis://:true@h",
        "rediss://h?ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem",
        "rediss://u:p@h:6380/2",
        "redis+sentinel://h/lists",
        "redis+sentinel://me:p%40ss@h:1,i:2/lists/3?socket_timeout=4",
        "redis+sentinel://:12345@h/my%20lists?db=5",
    ],
)
def test_feast_gets_the_options_that_the_lists_use(url: str) -> None:
    pools = [client.connection_pool for client in (connect(url), feast_client(url))]
    assert pools[0].connection_class is pools[1].connection_class
    assert connection_options(pools[0], url) == connection_options(pools[1], url)
    assert sentinels(pools[0]) == sentinels(pools[1])


def connection_options(pool: Any, url: str) -> dict[str, Any]:
    """The options that the URL gives, and those that have a default."""
    given = {"db": 0, "port": 6379, **pool.connection_kwargs}
    names = parse(url).options.keys() - {"connection_class"} | TIMEOUTS.keys() | {"host", "db", "password", "username"}
    return {**{name: given.get(name) for name in names}, "port": int(given["port"])}


def sentinels(pool: Any) -> tuple[str, list[tuple[str, int]]]:
    """The name of the master, and the addresses of the Sentinels that know it."""
    manager = getattr(pool, "sentinel_manager", None)
    found = [one.connection_pool.connection_kwargs for one in manager.sentinels] if manager else []
    return getattr(pool, "service_name", ""), [(one["host"], one["port"]) for one in found]


def test_sentinel_address_has_hosts_service_and_database() -> None:
    found = parse("redis+sentinel://me:hu%40sh@a:1,b/lists/3?socket_timeout=4")
    assert found.hosts == [("a", 1), ("b", 26379)]
    assert found.service == "lists"
    assert found.options == {"username": "me", "password": "hu@sh", "db": 3, "socket_timeout": 4.0}


def test_password_is_replaced_by_the_variable() -> None:
    for url in ("redis://me:hush@h/1", "redis+sentinel://me:hush@h/lists"):
        settings = str(feast_online_store(url, with_password=False))
        assert "password=${REDIS_PASSWORD}" in settings
        assert "hush" not in settings


@pytest.mark.parametrize(
    "url", ["redis://h:99999", "redis://a:1,b:2/0", "redis://:hu/sh@h", "http://h", "redis://", "unix:///tmp/x",
            "redis://:hu,sh@h", "redis://h?client_name=a,b", "redis://[::1]:6379/0", "redis+sentinel://h:1",
            "redis+sentinel://h:1,/lists", "redis+sentinel:///lists", "redis+sentinel://:hu/sh@h/lists",
            "redis+sentinel://h:1/lists/zero", "redis+sentinel://h:hush/lists"],
)  # fmt: skip
def test_address_that_feast_cannot_use_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(RedisAddressError, match=EXAMPLE) as caught:
        feast_online_store(url, with_password=True)
    assert "hu" not in str(caught.value).replace("redis://host", "")
