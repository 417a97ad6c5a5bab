"""Claims a worker of a flow for this process (`streaming.kafka.ownership`)."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError

from features.redis_address import connect
from infra.run.workers import Worker
from infra.settings import Settings
from streaming.kafka.ownership import Ownership, new_claim
from streaming.state.model_versions import read_versions
from streaming.stores import list_client

INSTANCE_FILE: Final = ".instance"  # in data_dir: its identity. A copy on another machine is the same instance


@contextmanager
def own_worker(
    settings: Settings, flow: str, worker: Worker, stop: threading.Event, locked: bool
) -> Iterator[Ownership]:
    """Own a worker of a flow during the context. Raises StreamError.

    `locked`: this process holds the worker's lock in the data folder, so no other process of this folder runs.
    """
    instance = _instance(settings.data_dir) if locked else secrets.token_hex(8)
    claim = new_claim(flow, worker.index, worker.count, instance, _minimum(settings, flow))
    owner = Ownership(settings.kafka_config(), claim, stop, settings.lease_seconds)
    owner.acquire()
    try:
        yield owner
    finally:
        owner.release()


def _instance(data_dir: Path) -> str:
    """The identity of the data folder, created if missing. Flows that start together agree on one."""
    file, new = data_dir / INSTANCE_FILE, data_dir / f"{INSTANCE_FILE}-{secrets.token_hex(8)}"
    if not file.exists():
        new.write_text(secrets.token_hex(8))
        try:
            file.hardlink_to(new)
        except FileExistsError:
            pass  # another flow was faster
        new.unlink()
    return file.read_text()


def _minimum(settings: Settings, flow: str) -> int:
    """A number above those that readers know: they may outlive the topic `owners`, or this clock may be behind."""
    if flow == "learn":
        return 1 + max((version.owner for version in read_versions(settings.kafka_config()).values()), default=0)
    if flow == "publish" and settings.redis_url:
        try:
            with closing(connect(settings.redis_url)) as client:
                known: Any = client.hvals(list_client.owners_key(settings.namespace))
                return 1 + max(map(int, known), default=0)
        except RedisError:
            return 0
    return 0
