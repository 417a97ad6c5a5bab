"""The Redis URL: the one place that reads it, for the lists and for Feast, so that both are in the same database.

redis-py reads `redis://` and `rediss://`. A master that Sentinel watches has the form
`redis+sentinel://user:password@host1:26379,host2:26379/service/db`: the hosts are those of the Sentinels, the user and
the password those of the Redis behind them. An option that Feast cannot carry is refused.
"""

import json
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.connection import SSLConnection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

PASSWORD_VARIABLE: Final = "REDIS_PASSWORD"  # Feast's file names it instead of the password
# One attempt on a silent Redis ends within five seconds, so that a flow can stop in time. The sink retries.
TIMEOUTS: Final = {"socket_timeout": 2, "socket_connect_timeout": 1, "health_check_interval": 30}
SENTINEL_SCHEME: Final = "redis+sentinel://"
SENTINEL_PORT: Final = 26379
_SENTINEL_TIMEOUTS: Final = {"socket_timeout": 1, "socket_connect_timeout": 0.5}  # several may be asked in one attempt
_EXAMPLE: Final = "an address like redis://host:6379/0"
_SENTINEL_EXAMPLE: Final = "an address like redis+sentinel://host1:26379,host2:26379/service/0"
_INVALID: Final = (
    f"The Redis address is not valid: use {_EXAMPLE}, or {_SENTINEL_EXAMPLE}, and encode special characters of the "
    "password as %XX."
)


class RedisAddressError(ValueError):
    """The address cannot be used. The message names the cause and the remedy, and contains no password."""


class RedisAddress(NamedTuple):
    """A Redis, or the Sentinels that know which Redis is the master."""

    hosts: list[tuple[str, int]]  # host and port of the Redis, or of each Sentinel; empty: a socket file
    options: dict[str, Any]  # of redis-py, for the connection to the Redis, without host and port
    service: str = ""  # name of the master at the Sentinels; empty: there are none


def parse(url: str) -> RedisAddress:
    """Read a Redis URL. Raises RedisAddressError."""
    try:
        return _parse_sentinel(url) if url.startswith(SENTINEL_SCHEME) else _parse_single(url)
    except ValueError:  # its message may contain a part of the password
        raise RedisAddressError(_INVALID) from None


def connect(url: str, *, decode_responses: bool = False) -> Redis:
    """A client of the master that gives up after a few seconds, so that the caller decides how long to retry.

    Raises RedisAddressError. With Sentinels, each new connection asks them for the master.
    """
    address = parse(url)
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3)
    options: dict[str, Any] = {**TIMEOUTS, "retry": retry}
    if not address.service:
        return Redis.from_url(url, decode_responses=decode_responses, **options)
    sentinel = Sentinel(address.hosts, sentinel_kwargs=_SENTINEL_TIMEOUTS)  # type: ignore[no-untyped-call]
    given = {**options, **address.options, "decode_responses": decode_responses}
    master: Redis = sentinel.master_for(address.service, **given)  # type: ignore[no-untyped-call]
    limit_retries(master, retry)
    return master


def limit_retries(client: Redis, retry: Retry) -> None:
    """Retry commands as `retry` says. A silent Sentinel is not asked again, because the next one is asked instead."""
    client.set_retry(retry)
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager else []:
        sentinel.set_retry(Retry(NoBackoff(), 0))


def feast_online_store(url: str, with_password: bool) -> dict[str, Any]:
    """Feast's settings of its online store. Raises RedisAddressError.

    The connection string is `host:port` of each host, then `name=value` of each option, separated by commas.
    """
    address = parse(url)
    if not address.hosts:
        raise RedisAddressError(f"Feast needs the host of Redis: use {_EXAMPLE}.")
    if any(":" in host for host, _ in address.hosts):
        raise RedisAddressError(f"Feast cannot use the IPv6 address of a host: use its name, {_EXAMPLE}.")
    options = {"db": 0, **TIMEOUTS, **address.options}
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    if "password" in options and not with_password:
        options["password"] = f"${{{PASSWORD_VARIABLE}}}"
    parts = [f"{host}:{port}" for host, port in address.hosts]
    parts += [f"{name}={_value(name, value)}" for name, value in options.items()]
    settings = {"type": "redis", "connection_string": ",".join(parts)}
    if address.service:
        settings |= {"redis_type": "redis_sentinel", "sentinel_master": address.service}
    return settings


def _parse_single(url: str) -> RedisAddress:
    options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
    host, port = options.pop("host", ""), options.pop("port", 6379)
    return RedisAddress([(host, port)] if host else [], options)


def _parse_sentinel(url: str) -> RedisAddress:
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.removeprefix("/").partition("/")
    if not service or (database and not database.isdecimal()):
        raise ValueError("no service, or no number of a database")
    options = _parse_single(f"redis://{login}{at}redis/{database}?{parts.query}").options
    return RedisAddress([_sentinel(text) for text in hosts.split(",")], options, unquote(service))


def _sentinel(text: str) -> tuple[str, int]:
    """Host and port of a Sentinel."""
    host, port = urlsplit(f"//{text}").hostname, urlsplit(f"//{text}").port
    if not host:
        raise ValueError("no host")
    return host, port or SENTINEL_PORT


def _value(name: str, value: Any) -> str:
    """A value as Feast reads it: as JSON if it is that, else as text."""
    if not isinstance(value, str):
        return json.dumps(value)
    if "," in value:
        raise RedisAddressError(f"Feast cannot use a comma in the option {name} of the Redis address: choose another.")
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value)  # text that looks like a number
