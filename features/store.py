"""The Feast repository: opened, defined once, written fast.

Feast's own write paths read the registry again and go through pandas on each call; building the protos ourselves and
handing them to the provider is the fastest supported path (twice `push`). That path checks nothing, so rows are checked
here. Redis keeps a row only if its time is newer than the stored one: writing again what was written changes nothing.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

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

from features.definitions import OBJECTS, OFFLINE, ROWS, USER_TTL, title_semantics, user_activity
from features.rows import Row, to_proto

BATCH: Final = 500  # rows a call: more wins nothing
_SECRET: Final = "REDIS_PASSWORD"  # environment variable that feature_store.yaml names in the password's place
# One attempt on a silent Redis ends within five seconds, so that a flow that is asked to stop can; who writes tries on.
_TIMEOUTS: Final = "socket_timeout=2,socket_connect_timeout=1,health_check_interval=30"
_RETRY: Final = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 1)


class StoreError(Exception):
    """The feature store cannot be opened as asked; the message says why, and the remedy."""


def open_store(redis_url: str, folder: Path, project: str = "premiere") -> FeatureStore:
    """The Feast repository in `folder`, made or brought up to date if need be; safe when several processes open it.

    `folder` gets a feature_store.yaml, so that `FeatureStore(repo_path=folder)` opens the same one; a password in
    `redis_url` is not written there but read from REDIS_PASSWORD. Raises StoreError for an address Feast cannot use.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config = _repo_config(_connection(urlsplit(redis_url), secret=True), folder, project)
    shown = _settings(_connection(urlsplit(redis_url), secret=False), project)
    with _locked(folder / ".lock"):
        _write(folder / "feature_store.yaml", yaml.safe_dump(shown, sort_keys=False))
        for view, schema in ROWS.items():
            _empty_log(offline_folder(folder, view), schema)
        _apply_once(config, folder)
    store = FeatureStore(repo_path=str(folder), config=config)
    _redis(store).set_retry(_RETRY)  # its connection string has no word for it
    return store


def offline_folder(folder: Path, view: str) -> Path:
    """Where the offline log of a view lies in the repository: Parquet files and nothing else."""
    return folder / OFFLINE / view


def write_user_activity(store: FeatureStore, rows: Sequence[Row]) -> None:
    """Rows of `user_activity` into the online store; of one user's, the newest. Raises RowError, redis errors.

    A row of FORGOTTEN_ROW among them deletes what its user had up to there: what follows it begins anew.
    """
    forgotten = {row["user_id"]: place for place, row in enumerate(rows) if "event_timestamp" not in row}
    if forgotten:
        forget_users(store, list(forgotten))
        rows = [row for place, row in enumerate(rows) if place > forgotten.get(row["user_id"], -1)]
    _write_online(store, _with_ttl(store, USER_TTL), user_activity, rows)


def forget_users(store: FeatureStore, users: Sequence[str]) -> None:
    """Delete all that the online store holds of these users. Raises redis errors."""
    for start in range(0, len(users), BATCH):
        _redis(store).delete(*(_key(store, user) for user in users[start : start + BATCH]))


def knows_user(store: FeatureStore, user: str) -> bool:
    """Whether the online store has anything of this user. Raises redis errors."""
    return bool(_redis(store).exists(_key(store, user)))


def _key(store: FeatureStore, user: str) -> bytes:
    """Where the online store keeps a user's features: Feast deletes whole views only, so we name the key ourselves."""
    entity = EntityKey(join_keys=[ROWS[user_activity.name].names[0]], entity_values=[Value(string_val=user)])
    return _redis_key(store.config.project, entity, store.config.entity_key_serialization_version)


def _redis(store: FeatureStore) -> Any:
    online: Any = store.provider.online_store
    return online._get_client(store.config.online_store)


def write_title_semantics(store: FeatureStore, rows: Sequence[Row]) -> None:
    """Rows of `title_semantics` into the online store; of one title's, the newest. Raises RowError, redis errors."""
    _write_online(store, store.config, title_semantics, rows)


def _write_online(store: FeatureStore, config: RepoConfig, view: FeatureView, rows: Sequence[Row]) -> None:
    key = ROWS[view.name].names[0]
    newest: dict[str, Row] = {}
    for row in rows:
        known = newest.get(row[key])
        if known is None or row["event_timestamp"] > known["event_timestamp"]:
            newest[row[key]] = row
    protos = [to_proto(view, row) for row in newest.values()]
    for start in range(0, len(protos), BATCH):
        store.provider.online_write_batch(config, view, protos[start : start + BATCH], None)


@lru_cache(maxsize=8)
def _with_ttl(store: FeatureStore, ttl: timedelta) -> RepoConfig:
    """The store's configuration with keys that expire: Feast knows one expiry a store, we want it for users only."""
    settings = _settings(store.config.online_store.connection_string, store.config.project)
    settings["online_store"]["key_ttl_seconds"] = int(ttl.total_seconds())
    return RepoConfig(**settings)


def _settings(connection: str, project: str) -> dict[str, Any]:
    return {
        "project": project,
        "provider": "local",
        "registry": "registry.db",
        "online_store": {"type": "redis", "connection_string": connection},
        "offline_store": {"type": "dask"},
        "entity_key_serialization_version": 3,
    }


def _repo_config(connection: str, folder: Path, project: str, registry: str = "registry.db") -> RepoConfig:
    config = RepoConfig(**{**_settings(connection, project), "registry": str(folder / registry)})
    config.repo_path = folder
    return config


def _connection(url: SplitResult, secret: bool) -> str:
    """A Redis URL as Feast writes one: host:port, then name=value. Raises StoreError."""
    if url.scheme not in ("redis", "rediss") or not url.hostname:
        raise StoreError(f"Feast needs a Redis address like redis://host:6379/0, not {url.scheme}://{url.hostname}.")
    password, database = unquote(url.password or ""), url.path.strip("/") or "0"
    if "," in password or "," in unquote(url.username or ""):
        raise StoreError("Feast cannot use a Redis password or user name with a comma in it: choose another.")
    parts = [f"{url.hostname}:{url.port or 6379}", f"db={database}", _TIMEOUTS]
    if url.username:
        parts.append(f"username={unquote(url.username)}")
    if password:
        parts.append(f"password={password if secret else '${' + _SECRET + '}'}")
    if url.scheme == "rediss":
        parts.append("ssl=true")
    return ",".join(parts)


def _apply_once(config: RepoConfig, folder: Path) -> None:
    """Apply the definitions unless these very ones were applied: beside the registry, then moved into its place.

    Feast writes the registry again for each object, in place; a reader in between would see half of it.
    """
    mark, registry, draft = folder / ".definitions", folder / "registry.db", folder / ".registry.draft"
    wanted = f"{config.project} {_FINGERPRINT}"
    if registry.exists() and mark.exists() and mark.read_text() == wanted:
        return
    draft.unlink(missing_ok=True)
    if registry.exists():
        shutil.copyfile(registry, draft)  # another project's definitions stay
    drafting = _repo_config(config.online_store.connection_string, folder, config.project, draft.name)
    FeatureStore(repo_path=str(folder), config=drafting).apply(deepcopy(OBJECTS))  # Feast adds to them
    os.replace(draft, registry)
    _write(mark, wanted)


def _fingerprint() -> str:
    """A hash of all definitions."""
    digest = hashlib.sha256()
    for thing in OBJECTS:
        proto = thing.to_proto()
        digest.update((proto.spec if hasattr(proto, "spec") else proto).SerializeToString(deterministic=True))
    return digest.hexdigest()


_FINGERPRINT: Final = _fingerprint()


def _empty_log(folder: Path, schema: pa.Schema) -> None:
    """A Parquet file without rows: Feast cannot read an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.parquet")):
        return
    draft = folder / ".schema.draft"  # a leading dot: readers pass over it
    pq.write_table(schema.empty_table(), draft)
    os.replace(draft, folder / "0-schema.parquet")


def _write(path: Path, text: str) -> None:
    """Write a file whole, or not at all, and only where it changes."""
    if path.exists() and path.read_text() == text:
        return
    draft = path.with_name(f".{path.name.lstrip('.')}.draft")
    draft.write_text(text)
    os.replace(draft, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the operating system drops with the process, however it ends."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
