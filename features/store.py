"""Opens the Feast repository, applies the definitions once, and writes rows to the online store.

Feast's own write paths read the registry and go through pandas on each call. Building the protos here and passing them
to the provider is the fastest supported path (twice as fast as `push`). This path checks nothing, so `features.rows`
checks the rows. Redis keeps a row only if its timestamp is newer than the stored one: repeated writes change nothing.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import features.feast_import  # noqa: F401

# isort: split

import pyarrow as pa
import pyarrow.parquet as pq
import yaml  # type: ignore[import-untyped]
from feast import FeatureStore, FeatureView, RepoConfig
from feast.infra.online_stores.helpers import _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from features import definitions
from features.definitions import FEAST_OBJECTS, OFFLINE_FOLDER, USER_TTL, VIEW_SCHEMAS, title_semantics, user_activity
from features.redis_address import RedisAddressError, feast_online_store, limit_retries
from features.rows import Row, to_proto

ROWS_PER_WRITE: Final = 500  # larger batches are not faster
_RETRY: Final = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 1)


DEFINITIONS_FILE: Final = "premiere_features.py"  # in the repository, for Feast's own commands
APPLIED_FILE: Final = ".definitions"  # in the repository: the hash of the applied definitions

log: Final = logging.getLogger(__name__)


class StoreError(Exception):
    """The feature store cannot be opened. The message names the cause and the remedy."""


def open_store(redis_url: str, folder: Path, project: str = "premiere") -> FeatureStore:
    """Open the Feast repository in `folder`; create or update it if necessary. Several processes may open it at once.

    `folder` gets a feature_store.yaml and the definitions, so that `FeatureStore(repo_path=folder)` opens the same
    repository. A password in `redis_url` is not written there: Feast reads it from the environment variable
    REDIS_PASSWORD.
    Raises StoreError for an address that Feast cannot use.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        config = _repo_config(feast_online_store(redis_url, with_password=True), folder, project)
        written = _settings(feast_online_store(redis_url, with_password=False), project)
    except RedisAddressError as error:
        raise StoreError(str(error)) from None
    with _locked(folder / ".lock"):
        _write_if_changed(folder / "feature_store.yaml", yaml.safe_dump(written, sort_keys=False))
        for view, schema in VIEW_SCHEMAS.items():
            _create_log(offline_folder(folder, view), schema)
        _write_if_changed(folder / DEFINITIONS_FILE, _definitions_for_feast())
        store = _apply(config, folder)
    limit_retries(redis_of(store), _RETRY)  # the connection string has no option for it
    return store


def missing_views(store: FeatureStore) -> set[str]:
    """The names of our views that are not in the registry now: another Feast program has removed them."""
    assert store.repo_path is not None
    return _missing_views(store.config, Path(store.repo_path))


def apply_again(store: FeatureStore) -> None:
    """Apply the definitions again if another Feast program has removed them."""
    assert store.repo_path is not None
    folder = Path(store.repo_path)
    with _locked(folder / ".lock"):
        _apply(store.config, folder)


def offline_folder(folder: Path, view: str) -> Path:
    """The folder of a view's offline log in the repository; it contains only Parquet files."""
    return folder / OFFLINE_FOLDER / view


def write_user_activity(store: FeatureStore, rows: Sequence[Row]) -> None:
    """Write rows of `user_activity` to the online store, the newest of each user. Raises RowError, redis errors.

    A row of USER_ERASURES_SCHEMA deletes its user's features; only the rows after it are written.
    """
    _write_online(store, _with_ttl(store, USER_TTL), user_activity, rows)


def write_title_semantics(store: FeatureStore, rows: Sequence[Row]) -> None:
    """Write rows of `title_semantics` to the online store, the newest of each title. Raises RowError, redis errors.

    A row with only a `title_id` deletes the title's features; only the rows after it are written.
    """
    _write_online(store, store.config, title_semantics, rows)


def delete_users(store: FeatureStore, users: Sequence[str]) -> None:
    """Delete all features of these users from the online store. Raises redis errors."""
    _delete(store, user_activity, users)


def has_user(store: FeatureStore, user: str) -> bool:
    """Whether the online store has features of this user. Raises redis errors."""
    return bool(redis_of(store).exists(redis_key_of(store, user_activity, user)))


def _delete(store: FeatureStore, view: FeatureView, ids: Sequence[str]) -> None:
    """Delete all features of these users or titles. Feast can only delete whole views, so they are deleted by key."""
    for start in range(0, len(ids), ROWS_PER_WRITE):
        redis_of(store).delete(*(redis_key_of(store, view, one) for one in ids[start : start + ROWS_PER_WRITE]))


def redis_key_of(store: FeatureStore, view: FeatureView, entity_id: str) -> bytes:
    """The Redis key of the features of a user or title."""
    entity = EntityKey(join_keys=[VIEW_SCHEMAS[view.name].names[0]], entity_values=[Value(string_val=entity_id)])
    return _redis_key(store.config.project, entity, store.config.entity_key_serialization_version)


def redis_of(store: FeatureStore) -> Any:
    """The Redis client of the online store."""
    online: Any = store.provider.online_store
    return online._get_client(store.config.online_store)


def _write_online(store: FeatureStore, config: RepoConfig, view: FeatureView, rows: Sequence[Row]) -> None:
    """Write the newest row of each id. A row without a time deletes the id's features and cancels the rows before."""
    key = VIEW_SCHEMAS[view.name].names[0]
    deleted_at = {row[key]: index for index, row in enumerate(rows) if "event_timestamp" not in row}
    _delete(store, view, list(deleted_at))
    newest: dict[str, Row] = {}
    for index, row in enumerate(rows):
        if index <= deleted_at.get(row[key], -1):
            continue
        other = newest.get(row[key])
        if other is None or row["event_timestamp"] > other["event_timestamp"]:
            newest[row[key]] = row
    protos = [to_proto(view, row) for row in newest.values()]
    for start in range(0, len(protos), ROWS_PER_WRITE):
        store.provider.online_write_batch(config, view, protos[start : start + ROWS_PER_WRITE], None)


@lru_cache(maxsize=8)
def _with_ttl(store: FeatureStore, ttl: timedelta) -> RepoConfig:
    """The store's configuration with expiring keys. Feast has one expiry per store, but titles have none."""
    online = {**_online_store(store.config), "key_ttl_seconds": int(ttl.total_seconds())}
    return RepoConfig(**_settings(online, store.config.project))


def _online_store(config: RepoConfig) -> dict[str, Any]:
    """The settings of the online store in a configuration."""
    settings: dict[str, Any] = config.online_store.model_dump(mode="json", exclude_unset=True)
    return settings


def _settings(online_store: dict[str, Any], project: str) -> dict[str, Any]:
    return {
        "project": project,
        "provider": "local",
        "registry": "registry.db",
        "online_store": online_store,
        "offline_store": {"type": "dask"},
        "entity_key_serialization_version": 3,
    }


def _repo_config(online_store: dict[str, Any], folder: Path, project: str, registry: str = "registry.db") -> RepoConfig:
    config = RepoConfig(**{**_settings(online_store, project), "registry": str(folder / registry)})
    config.repo_path = folder
    return config


def _definitions_for_feast() -> str:
    """Our definitions as a file that needs only Feast.

    `feast apply` deletes everything that no file of the repository defines, with its rows. Other teams may put files of
    their own beside this one.
    """
    source = Path(definitions.__file__).read_text()
    lines = [line for line in source.splitlines() if "features.feast_import" not in line and line != "# isort: split"]
    return "# Written by Premiere at each start, for Feast's commands. Changes are lost.\n" + "\n".join(lines) + "\n"


def _apply(config: RepoConfig, folder: Path) -> FeatureStore:
    """The store with our definitions; applies them if they are new, or if another Feast program has removed them."""
    if (folder / APPLIED_FILE).exists() and (missing := _missing_views(config, folder)):
        log.warning("Another Feast program has removed %s: applying them again.", ", ".join(sorted(missing)))
        (folder / APPLIED_FILE).unlink()
    _apply_once(config, folder)
    return FeatureStore(repo_path=str(folder), config=config)


def _missing_views(config: RepoConfig, folder: Path) -> set[str]:
    if not (folder / "registry.db").exists():
        return set(VIEW_SCHEMAS)
    store = FeatureStore(repo_path=str(folder), config=config)
    return set(VIEW_SCHEMAS) - {view.name for view in store.list_feature_views()}


def _apply_once(config: RepoConfig, folder: Path) -> None:
    """Apply the definitions to a copy of the registry, then replace the registry; skip it if they were applied before.

    Feast rewrites the registry in place for each object, so a reader would see an incomplete one.
    """
    applied, registry, draft = folder / APPLIED_FILE, folder / "registry.db", folder / ".registry.draft"
    wanted = f"{config.project} {_FINGERPRINT}"
    if registry.exists() and applied.exists() and applied.read_text() == wanted:
        return
    draft.unlink(missing_ok=True)
    if registry.exists():
        shutil.copyfile(registry, draft)  # keeps the definitions of other projects
    draft_config = _repo_config(_online_store(config), folder, config.project, draft.name)
    FeatureStore(repo_path=str(folder), config=draft_config).apply(deepcopy(FEAST_OBJECTS))  # apply changes the objects
    os.replace(draft, registry)
    _write_if_changed(applied, wanted)


def _fingerprint() -> str:
    """A hash of all definitions, without the times at which the objects were made: these differ in each process."""
    digest = hashlib.sha256()
    for definition in FEAST_OBJECTS:
        proto = definition.to_proto()
        spec = deepcopy(proto.spec if hasattr(proto, "spec") else proto)
        _clear_times(spec)
        digest.update(spec.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _clear_times(message: Any) -> None:
    """Remove all timestamps from a proto."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.full_name == "google.protobuf.Timestamp":
            message.ClearField(field.name)
        elif field.message_type.GetOptions().map_entry:
            continue
        else:
            for one in value if isinstance(value, Sequence) or hasattr(value, "add") else [value]:
                _clear_times(one)


_FINGERPRINT: Final = _fingerprint()


def _create_log(folder: Path, schema: pa.Schema) -> None:
    """Create the folder with a Parquet file without rows, because Feast cannot read an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.parquet")):
        return
    draft = folder / ".schema.draft"  # readers skip names with a leading dot
    pq.write_table(schema.empty_table(), draft)
    os.replace(draft, folder / "0-schema.parquet")


def _write_if_changed(path: Path, text: str) -> None:
    """Write a file atomically, and only if its content changes."""
    if path.exists() and path.read_text() == text:
        return
    draft = path.with_name(f".{path.name.lstrip('.')}.draft")
    draft.write_text(text)
    os.replace(draft, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the operating system releases when the process ends."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
