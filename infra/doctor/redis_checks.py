"""Checks of Redis: reachable, version, memory policy, persistence, permissions; and whether Feast can use its URL."""

import uuid
from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Any, Final

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from features.redis_address import SENTINEL_SCHEME, RedisAddressError, connect, feast_online_store
from infra.doctor.findings import Finding
from infra.local.supervisor import FLOWS
from infra.settings import Settings
from streaming.stores import list_client
from streaming.stores.retry import REFUSED_REMEDIES, answer_of, error_code, is_outage

PART: Final = "redis"
OLDEST_VERSION: Final = (6, 2)  # has SMISMEMBER, which readers use
NEARLY_FULL: Final = 0.9
_SCRIPT: Final = "redis.call('HSET', KEYS[1], 'a', '1') return redis.call('EXPIRE', KEYS[1], 60)"


def redis_findings(settings: Settings, flows: Collection[str] = FLOWS) -> Iterator[Finding]:
    """All checks that these flows need of Redis."""
    url = settings.require_redis_url()
    try:
        feast_online_store(url, with_password=False)
    except RedisAddressError as error:
        yield Finding("error", "feast", str(error))
        return
    try:
        with closing(connect(url)) as client:
            client.ping()
            yield from _findings(client, settings.namespace, url, flows)
    except RedisError as error:
        remedy = REFUSED_REMEDIES.get(error_code(error), "check PREMIERE_REDIS_URL")
        yield Finding(
            "error", PART, f"Redis refuses or does not answer: {answer_of(error)}", f"{remedy[0].upper()}{remedy[1:]}.",
            may_pass=is_outage(error),
        )  # fmt: skip


def _findings(client: Any, namespace: str, url: str, flows: Collection[str]) -> Iterator[Finding]:
    try:
        yield from _server_findings(client.info(), url)
    except NoPermissionError:
        text = "its version, memory policy and persistence are unknown: this user may not run INFO"
        yield Finding("warning", PART, text, "Run `premiere doctor` once with an administrator's PREMIERE_REDIS_URL.")
    yield from _permission_findings(client, namespace, flows)


def _server_findings(info: dict[str, Any], url: str) -> Iterator[Finding]:
    version = str(info.get("redis_version", "0"))
    if tuple(map(int, version.split(".")[:2])) < OLDEST_VERSION:
        yield Finding("error", PART, f"version {version} is too old", "Use Redis 6.2 or newer.")
    else:
        yield Finding("ok", PART, f"version {version} answers")
    if info.get("redis_mode") == "cluster":
        yield Finding("error", PART, "it is a cluster", "Use a single Redis, or one with replicas and Sentinel.")
    if url.startswith(SENTINEL_SCHEME) and not info.get("connected_slaves"):
        yield Finding("warning", PART, "the master has no replica, so no failover is possible", "Start a replica.")
    if info.get("role") != "master":
        text = "it is a replica, which takes no writes"
        yield Finding("error", PART, text, "Set PREMIERE_REDIS_URL to the primary.", may_pass=True)  # by a failover
    yield from _memory_findings(info)
    if not info.get("aof_enabled"):
        yield Finding(
            "warning", PART, "no append-only file: a restart loses lists and features since the last snapshot",
            "Set appendonly yes.",
        )  # fmt: skip


def _memory_findings(info: dict[str, Any]) -> Iterator[Finding]:
    limit, used, policy = info.get("maxmemory", 0), info.get("used_memory", 0), info.get("maxmemory_policy", "")
    if not limit:
        yield Finding("warning", PART, "no memory limit", "Set maxmemory, and maxmemory-policy volatile-ttl.")
        return
    if policy.startswith("allkeys"):
        yield Finding(
            "error", PART, f"the memory policy {policy} evicts titles and the marks of erased users",
            "Set maxmemory-policy volatile-ttl.",
        )  # fmt: skip
    elif used > NEARLY_FULL * limit:
        yield Finding("warning", PART, f"{used / limit:.0%} of the memory limit is used", "Raise maxmemory.")
    else:
        yield Finding("ok", PART, f"{used / limit:.0%} of the memory limit is used, policy {policy}")


def _permission_findings(client: Any, namespace: str, flows: Collection[str]) -> Iterator[Finding]:
    """Write, read and delete keys as these flows do: each may have a user with the least permissions."""
    one = uuid.uuid4().hex
    try:
        if "publish" in flows:
            name = f"{namespace}:doctor:{one}"
            client.evalsha(client.script_load(_SCRIPT), 1, name)
            client.publish(list_client.launch_channel(namespace), "")
            client.delete(name)
        if {"features", "titles"} & set(flows):
            name = f"doctor:{one}:{namespace}"  # Feast's keys end with the project
            client.hset(name, "a", "1")
            client.hmget(name, ["a"])
            client.delete(name)
    except ResponseError as error:
        text, remedy = f"a command was refused: {error}", "docs/security.md lists the permissions."
        yield Finding("error", PART, text, remedy, may_pass=is_outage(error))
    else:
        yield Finding("ok", PART, f"this user has the permissions that {', '.join(flows)} need")
