"""`premiere reset`: delete all state of the flows.

The parts of the state are useless without each other, for example user histories without their features. So the command
deletes all of them: the data folder, the checkpoints wherever they are, and the project's keys in an external Redis. It
removes each part independently and reports failures; the next run continues. It keeps the topics of an external broker
and explains the consequences.
"""

import shutil
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import fsspec
from redis import Redis
from redis.exceptions import RedisError

from features.redis_address import connect
from infra.errors import PremiereError, ServiceError, SettingsError
from infra.local import data_lock
from infra.local.address_file import ADDRESS_FILE, local_services
from infra.settings import Settings
from infra.settings_table import masked_values
from streaming.kafka.client import topic_name
from streaming.topics import topics

BATCH_KEYS: Final = 500  # in one round trip
SAMPLE_KEYS: Final = 100  # whose size is measured
FOLDERS: Final = {  # in data_dir; downloaded datasets, in "data", are kept
    "recovery stores": "recovery",
    "checkpoints": "checkpoints",
    "features": "feast",
    "broker log": "kafka",
    "Redis folder": "redis",
    "log files": "logs",
}


class StatePart(NamedTuple):
    """A part of the state that can be deleted."""

    name: str
    location: str
    size: str  # as text
    delete: Callable[[], None]


def delete_state(settings: Settings, confirm: Callable[[str], bool], print_line: Callable[[str], object]) -> None:
    """Delete all state if `confirm` returns True. Raises PremiereError if flows are running or something remains."""
    if local_services(settings.data_dir):
        raise SettingsError(f"`premiere up` is running on {settings.data_dir}: stop it first (Ctrl-C).")
    with data_lock.hold_exclusive(settings.data_dir):
        parts = state_parts(settings)
        for part in parts:
            print_line(f"{part.name:<18} {part.size:<28} {part.location}")
        print_line(kept_state(settings))
        if not parts:
            print_line("There is nothing to delete.")
        elif confirm("Delete all of it?"):
            _delete(parts, print_line)


def _delete(parts: list[StatePart], print_line: Callable[[str], object]) -> None:
    failures = []
    for part in parts:
        try:
            part.delete()
        except Exception as error:  # each fsspec storage has its own errors, and the other parts must be deleted
            failures.append(f"{part.name} at {part.location} ({error})")
    if failures:
        raise PremiereError(f"Not deleted: {'; '.join(failures)}. Fix the cause, then run the command again.")
    print_line("Deleted.")


def state_parts(settings: Settings) -> list[StatePart]:
    """The parts that exist; remote ones first, since they are more likely to fail. Raises ServiceError."""
    parts = [*_redis_keys(settings), *_checkpoints(settings)]
    for name, folder in FOLDERS.items():
        if (path := settings.data_dir / folder).exists():
            files = [file for file in path.rglob("*") if file.is_file()]
            size = _size_text(len(files), "file", sum(file.stat().st_size for file in files))
            parts.append(StatePart(name, str(path), size, lambda path=path: shutil.rmtree(path)))  # type: ignore[misc]
    if (addresses := settings.data_dir / ADDRESS_FILE).exists():  # of a `premiere up` that was killed
        parts.append(StatePart("addresses", str(addresses), "1 file", lambda: addresses.unlink(missing_ok=True)))
    return parts


def kept_state(settings: Settings) -> str:
    """What is not deleted, as text."""
    if not settings.bootstrap_servers:
        return "Downloaded datasets are kept."
    broker = settings.bootstrap_servers
    names = "|".join(topic_name(settings.kafka_config(), topic.name) for topic in topics())
    return (
        f"The topics at {broker} are kept. When the flows start again, they read the topics of producers from "
        "the first available record, and append their output to activity and titles again. To start without these "
        f"records, delete the topics (`kafka-topics.sh --bootstrap-server {broker} --delete --topic '{names}'`), then "
        "`premiere topics --create`."
    )


def _checkpoints(settings: Settings) -> Iterator[StatePart]:
    """Checkpoints outside the data folder: only the folders of checkpoints, since other files may be there."""
    if not settings.checkpoints:
        return
    url, location = settings.checkpoints.rstrip("/"), masked_values(settings)["checkpoints"]
    try:
        storage, root = fsspec.core.url_to_fs(url)
        listed = storage.ls(root, detail=False) if storage.exists(root) else []
        folders = [path for path in listed if Path(path).name.isdigit()]
        size = sum(storage.du(path) for path in folders)
    except Exception as error:
        raise ServiceError(
            f"The checkpoints at {location} cannot be listed ({error}): fix PREMIERE_CHECKPOINTS or the storage."
        ) from error
    if folders:
        text = _size_text(len(folders), "checkpoint", size)
        yield StatePart("checkpoints", location, text, lambda: storage.rm(folders, recursive=True))


def _redis_keys(settings: Settings) -> Iterator[StatePart]:
    """The project's keys in an external Redis. The embedded Redis keeps nothing after it stops."""
    if not settings.redis_url:
        return
    client, location = connect(settings.redis_url), masked_values(settings)["redis_url"]
    try:
        count = sum(len(batch) for batch in _key_batches(client, settings.namespace))
        sample = next(_key_batches(client, settings.namespace), [])[:SAMPLE_KEYS]
        size = sum(int(str(client.memory_usage(key) or 0)) for key in sample)
    except RedisError as error:
        raise ServiceError(
            f"Redis at {location} does not answer ({error}): start it, or unset PREMIERE_REDIS_URL (REDIS_URL)."
        ) from error
    if count:
        text = _size_text(count, "key", size * count // len(sample), "about ")
        yield StatePart("keys in Redis", location, text, lambda: _unlink(client, settings.namespace))


def _unlink(client: Redis, namespace: str) -> None:
    for batch in _key_batches(client, namespace):
        client.unlink(*batch)


def _key_batches(client: Redis, namespace: str) -> Iterator[list[bytes]]:
    """The deployment's keys, in batches."""
    scanned: Any = client.scan_iter(f"{namespace}:*", count=1000)
    keys = chain(scanned, _feast_keys(client, namespace))
    while batch := list(islice(keys, BATCH_KEYS)):
        yield batch


def _feast_keys(client: Redis, project: str) -> Iterator[bytes]:
    """The keys of Feast's project: an entity's name, the type, length and value of its id, the project's name."""
    import features.feast_import  # noqa: F401

    # isort: split
    from feast.infra.online_stores.helpers import _redis_key_prefix

    from features.definitions import FEAST_OBJECTS

    entities = dict.fromkeys(definition.join_key for definition in FEAST_OBJECTS if hasattr(definition, "join_key"))
    for start in (_redis_key_prefix([entity]) for entity in entities):
        scanned: Any = client.scan_iter(start + b"*" + project.encode(), count=1000)
        for key in scanned:
            size = int.from_bytes(key[len(start) + 4 : len(start) + 8], "little")
            if key[len(start) + 8 + size :] == project.encode():  # else a project whose name ends with this one
                yield key


def _size_text(count: int, unit: str, size: int, prefix: str = "") -> str:
    return f"{count:,} {unit}{'s' * (count != 1)}, {prefix}{size / 1e6:,.1f} MB"
