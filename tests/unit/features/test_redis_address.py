"""Feast and the lists use the same Redis, whatever the form of its URL."""

from typing import Any

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore
from redis import Redis

from features.redis_address import TIMEOUTS, RedisAddressError, feast_connection


def as_feast_reads_it(url: str) -> dict[str, Any]:
    nodes, options = RedisOnlineStore._parse_connection_string(feast_connection(url, with_password=True))
    return {**options, "host": nodes[0]["host"], "port": int(nodes[0]["port"])}


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
    ],
)
def test_feast_gets_the_options_that_the_lists_use(url: str) -> None:
    found = as_feast_reads_it(url)
    wanted = Redis.from_url(url).connection_pool
    assert {name: found.pop(name) for name in TIMEOUTS} == TIMEOUTS
    assert found.pop("ssl", False) == url.startswith("rediss")
    defaults = {"port": 6379, "db": 0}
    assert found == {**defaults, **wanted.connection_kwargs}


def test_password_is_replaced_by_the_variable() -> None:
    connection = feast_connection("redis://me:hush@h/1", with_password=False)
    assert "password=${REDIS_PASSWORD}" in connection
    assert "hush" not in connection


@pytest.mark.parametrize(
    "url", ["redis://h:99999", "redis://a:1,b:2/0", "redis://:hu/sh@h", "http://h", "redis://", "unix:///tmp/x",
            "redis://:hu,sh@h", "redis://h?client_name=a,b"],
)  # fmt: skip
def test_address_that_feast_cannot_use_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(RedisAddressError, match=r"redis://host:6379/0|choose another") as caught:
        feast_connection(url, with_password=True)
    assert "hu" not in str(caught.value).replace("redis://host", "")
