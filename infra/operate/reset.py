"""`premiere reset`: forget everything that the flows keep, consistently.

What is kept in one place is worth nothing without the other: histories whose features are gone, weights of events that
nobody can name. So all of it goes: what lies in the data folder, the checkpoints wherever they are, and the project's
keys in a Redis that is named. Each part is removed on its own; what could not be is said, and running it again goes on.
Topics of a broker that is named are not ours to delete: we say what that means.
"""

import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import fsspec
from redis import Redis
from redis.exceptions import RedisError

from infra.errors import PremiereError, ServiceError, SettingsError
from infra.local import data_lock
from infra.settings import RUNNING, Settings, running, shown
from streaming.stores.redis_lists import connect

OWN: Final = b"premiere:*"  # keys of predictions, and all that stands beside them
PROJECT: Final = b"premiere"  # Feast's, at the end of its keys
BATCH: Final = 500  # keys in one round trip
SAMPLE: Final = 100  # keys whose size is asked for
FOLDERS: Final = {  # under data_dir; "data", fetched data sets, stays
    "recovery stores": "recovery",
    "checkpoints": "checkpoints",
    "features": "feast",
    "the broker's log": "kafka",
    "Redis's folder": "redis",
    "the flows' logs": "logs",
}


class Part(NamedTuple):
    """Something to be forgotten."""

    name: str
    where: str
    what: str  # how much it is
    remove: Callable[[], None]


def reset(settings: Settings, agreed: Callable[[str], bool], say: Callable[[str], None]) -> None:
    """Forget everything, once `agreed`. Raises PremiereError where flows run, or where something is left."""
    if running(settings.data_dir):
        raise SettingsError(f"A `premiere up` on {settings.data_dir} is running: stop it first (Ctrl-C).")
    with data_lock.alone(settings.data_dir):
        found = parts(settings)
        for part in found:
            say(f"{part.name:<18} {part.what:<28} {part.where}")
        say(stays(settings))
        if not found:
            say("There is nothing to forget.")
        elif agreed("Forget all of it?"):
            _remove(found, say)


def _remove(found: list[Part], say: Callable[[str], None]) -> None:
    left = []
    for part in found:
        try:
            part.remove()
        except Exception as error:  # storages raise what they like, and the other parts shall go
            left.append(f"{part.name} at {part.where} ({error})")
    if left:
        raise PremiereError(f"Not everything could be removed: {'; '.join(left)}. Mend that, then run it again.")
    say("Forgotten.")


def parts(settings: Settings) -> list[Part]:
    """What there is to forget: first what lies elsewhere, for that fails sooner. Raises ServiceError."""
    found = [*_keys(settings), *_checkpoints(settings)]
    for name, folder in FOLDERS.items():
        if (path := settings.data_dir / folder).exists():
            files = [file for file in path.rglob("*") if file.is_file()]
            what = _much(len(files), "file", sum(file.stat().st_size for file in files))
            found.append(Part(name, str(path), what, lambda path=path: shutil.rmtree(path)))  # type: ignore[misc]
    if (left := settings.data_dir / RUNNING).exists():  # of a `premiere up` that was killed
        found.append(Part("addresses", str(left), "1 file", lambda: left.unlink(missing_ok=True)))
    return found


def stays(settings: Settings) -> str:
    """What is left alone, in words."""
    if not settings.bootstrap_servers:
        return "Data sets that were fetched stay."
    broker = settings.bootstrap_servers
    return (
        f"The topics at {broker} stay. When flows start again they read user-events and title-launches from what those "
        "still have, and write activity and titles a second time, behind what is there. To begin without any of it, "
        f"delete the topics (`kafka-topics.sh --bootstrap-server {broker} --delete --topic "
        "'user-events|title-launches|activity|titles|model-versions|dead-letters'`), then `premiere topics --create`."
    )


def _checkpoints(settings: Settings) -> Iterator[Part]:
    """Checkpoints that lie elsewhere: only the folders of ours, for who knows what else lies there."""
    if not settings.checkpoints:
        return
    url, where = settings.checkpoints.rstrip("/"), shown(settings)["checkpoints"]
    try:
        storage, root = fsspec.core.url_to_fs(url)
        listed = storage.ls(root, detail=False) if storage.exists(root) else []
        ours = [path for path in listed if Path(path).name.isdigit()]
        size = sum(storage.du(path) for path in ours)
    except Exception as error:
        raise ServiceError(f"The checkpoints at {where} cannot be listed ({error}): mend that first.") from error
    if ours:
        what = _much(len(ours), "checkpoint", size)
        yield Part("checkpoints", where, what, lambda: storage.rm(ours, recursive=True))


def _keys(settings: Settings) -> Iterator[Part]:
    """The project's keys, in a Redis that is named: the embedded one keeps nothing."""
    if not settings.redis_url:
        return
    client, where = connect(settings.redis_url), shown(settings)["redis_url"]
    try:
        count = sum(len(batch) for batch in _scan(client))
        sample = next(_scan(client), [])[:SAMPLE]
        size = sum(int(str(client.memory_usage(key) or 0)) for key in sample)
    except RedisError as error:
        raise ServiceError(f"Redis at {where} does not answer ({error}): start it, or unset its address.") from error
    if count:
        what = _much(count, "key", size * count // len(sample), "about ")
        yield Part("keys in Redis", where, what, lambda: _unlink(client))


def _unlink(client: Redis) -> None:
    for batch in _scan(client):
        client.unlink(*batch)


def _scan(client: Redis) -> Iterator[list[bytes]]:
    """The project's keys, in batches."""
    for pattern in (OWN, *_feast()):
        keys: Iterator[Any] = client.scan_iter(pattern, count=1000)
        while batch := list(islice(keys, BATCH)):
            yield batch


def _feast() -> list[bytes]:
    """The patterns of Feast's keys: an entity's prefix, its value, the project's name."""
    import features.feast_import  # noqa: F401

    # isort: split
    from feast.infra.online_stores.helpers import _redis_key_prefix

    from features.definitions import OBJECTS

    keys = dict.fromkeys(thing.join_key for thing in OBJECTS if hasattr(thing, "join_key"))
    return [_redis_key_prefix([key]) + b"*" + PROJECT for key in keys]


def _much(count: int, unit: str, size: int, about: str = "") -> str:
    return f"{count:,} {unit}{'s' * (count != 1)}, {about}{size / 1e6:,.1f} MB"
