"""The Redis URL in the form that Feast takes.

The URL is parsed by redis-py, as everywhere else in the project, so that the lists and the features are in the same
database. An option that Feast cannot carry is refused.
"""

import json
from typing import Any, Final

from redis.connection import SSLConnection, parse_url

PASSWORD_VARIABLE: Final = "REDIS_PASSWORD"  # Feast's file names it instead of the password
# One attempt on a silent Redis ends within five seconds, so that a flow can stop in time. The sink retries.
TIMEOUTS: Final = {"socket_timeout": 2, "socket_connect_timeout": 1, "health_check_interval": 30}
_EXAMPLE: Final = "an address like redis://host:6379/0"


class RedisAddressError(Exception):
    """Feast cannot use the address. The message names the cause and the remedy, and contains no password."""


def feast_connection(url: str, with_password: bool) -> str:
    """`host:port`, then `name=value` for each option, separated by commas. Raises RedisAddressError."""
    try:
        given: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError:  # its message may contain a part of the password
        raise RedisAddressError(
            f"The Redis address is not valid: use {_EXAMPLE}, and encode special characters of the password as %XX."
        ) from None
    is_tls = given.pop("connection_class", None) is SSLConnection
    if "path" in given or not given.get("host"):
        raise RedisAddressError(f"Feast needs the host of Redis: use {_EXAMPLE}.")
    host, port = given.pop("host"), given.pop("port", 6379)
    options = {"db": 0, **TIMEOUTS, **given, **({"ssl": True} if is_tls else {})}
    if "password" in options and not with_password:
        options["password"] = f"${{{PASSWORD_VARIABLE}}}"
    return ",".join([f"{host}:{port}", *(f"{name}={_value(name, value)}" for name, value in options.items())])


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
