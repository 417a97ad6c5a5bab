"""Read the lists that `publish` stores in Redis, and the names of all keys and fields.

This file needs only the package `redis`, so an application can copy it.

    premiere:user:<id>    horizon:0, horizon:3, ..   JSON arrays of title ids, best first, by horizon: the number of
                                                     events that have passed when the list is read
                          format                     format number of the hash
                          version                    number of the model version that ranked the lists
                          revision                   <newest event's append time>.<its offset>.<version>.<newest title's
                                                     stamp>, each with 20 digits, so that revisions can be compared as
                                                     text
                          log                        identity of the logs that the revision belongs to
                          events, event_ms           events of the user so far; append time of the newest, ms
                          written_ms                 time of the write, ms
    premiere:default      the same fields            the default lists, for unknown users
    premiere:withdrawn    a set                      title ids that a reader leaves out: the lists of inactive users
                                                     are not rewritten when a title is withdrawn
    premiere:withdrawn:revision
                          revision, complete         newest title's stamp that a writer began to write to the set, and
                                                     newest one whose withdrawals are all in it
                          log                        identity of the logs that these stamps belong to
    premiere:owners       a field per worker         fencing number of the newest process that writes

The key of an erased user has only the fields log and revision, with the append time of the request. A deployment with
the setting `prefix` has this prefix instead of `premiere` in the names of its keys.
"""

import json
from typing import Any, Final, NamedTuple

from redis import Redis

NAMESPACE: Final = "premiere"  # of the keys of a deployment without a prefix
HORIZON_FIELD_PREFIX: Final = "horizon:"


class Revision(NamedTuple):
    """The inputs of a user's lists. Within one log, a higher revision is newer."""

    appended: int  # append time of the user's newest event in `user-events`, ms
    event_offset: int  # of that event
    version: int  # number of the model version
    title_stamp: int  # newest change of a title, us


def key(user: str | None, namespace: str = NAMESPACE) -> str:
    """The key of a user's lists; None: of the lists for unknown users."""
    return f"{namespace}:default" if user is None else f"{namespace}:user:{user}"


def withdrawn_key(namespace: str = NAMESPACE) -> str:
    """The key of the set of withdrawn titles."""
    return f"{namespace}:withdrawn"


def withdrawn_revision_key(namespace: str = NAMESPACE) -> str:
    """The key of the revision of that set."""
    return f"{namespace}:withdrawn:revision"


def owners_key(namespace: str = NAMESPACE) -> str:
    """The key of the fencing numbers of the processes that write lists, by worker."""
    return f"{namespace}:owners"


def launch_channel(namespace: str = NAMESPACE) -> str:
    """The pub/sub channel that tells which lists a launch enters, as it happens."""
    return f"{namespace}:launches"


def read(client: Redis, user: str, events_since: int = 0, namespace: str = NAMESPACE) -> list[str]:
    """The title ids to show `user`, best first, if `events_since` events passed since the lists were written.

    It takes the list of the longest horizon that has passed. An unknown or erased user gets the default list. The
    result is empty before the first model version.
    """
    lists = _lists(client, key(user, namespace)) or _lists(client, key(None, namespace))
    passed = [horizon for horizon in lists if horizon <= events_since]
    if not passed:
        return []
    titles: list[str] = json.loads(lists[max(passed)])
    withdrawn: Any = client.smismember(withdrawn_key(namespace), titles) if titles else []
    return [title for title, is_withdrawn in zip(titles, withdrawn, strict=True) if not is_withdrawn]


def read_revision(client: Redis, user: str, namespace: str = NAMESPACE) -> tuple[str, Revision] | None:
    """The identity of the logs and the revision of a user's key; None if there is no key."""
    values: Any = client.hmget(key(user, namespace), ["log", "revision"])
    log, revision = ("" if value is None else _text(value) for value in values)
    return (log, parse_revision(revision)) if revision else None


def format_revision(revision: Revision) -> str:
    """A revision as text that sorts like the revision."""
    return ".".join(f"{part:020d}" for part in revision)


def parse_revision(text: str) -> Revision:
    """The revision that `format_revision` wrote."""
    return Revision(*map(int, text.split(".")))


def _lists(client: Redis, name: str) -> dict[int, Any]:
    """The lists of a key as JSON, by horizon; empty if there is no key or its user was erased."""
    found: Any = client.hgetall(name)
    fields = {_text(name): value for name, value in found.items()}
    prefix = HORIZON_FIELD_PREFIX
    return {int(name.removeprefix(prefix)): value for name, value in fields.items() if name.startswith(prefix)}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
