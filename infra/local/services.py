"""Starts the services that the settings do not name: broker, Redis, topics and metrics ports.

`premiere up` and the demo use it. Other commands find the addresses in a file (`infra.local.address_file`).
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from infra.errors import SettingsError
from infra.local.address_file import local_services, write_addresses
from infra.local.embedded import is_apache, start_kafka, start_redis
from infra.monitor.metrics_server import reserved_base_port
from infra.settings import Settings
from infra.topics import create_topics
from streaming.topics import topics

REDIS_URL_FILE: Final = "redis-url"  # in data_dir


@contextmanager
def start_services(settings: Settings, kafka_port: int = 0, redis_port: int = 0) -> Iterator[Settings]:
    """Run the services during the context and yield the settings with their addresses. Port 0: a free one.

    The Redis keeps its data on disk if the broker does: otherwise the flows would not write again what it lost.
    Raises SettingsError if services already run on the same data folder, ServiceError if one does not start.
    """
    if found := local_services(settings.data_dir):
        raise SettingsError(
            f"`premiere up` is already running on {settings.data_dir} (Kafka at {found['bootstrap_servers']}). "
            "Stop it, or set PREMIERE_DATA_DIR to another folder."
        )
    if settings.broker and settings.bootstrap_servers:
        raise SettingsError(
            f"Two brokers are configured: {settings.bootstrap_servers}, and a new one of kind {settings.broker}. "
            "Remove PREMIERE_BOOTSTRAP_SERVERS (KAFKA_BOOTSTRAP_SERVERS) or --broker (PREMIERE_BROKER)."
        )
    with ExitStack() as stack:
        started: dict[str, object] = {}
        if not settings.bootstrap_servers:
            folder = settings.data_dir.resolve() / "kafka"
            kafka = start_kafka(folder, settings.kafka_home, settings.broker, kafka_port)
            started["bootstrap_servers"] = stack.enter_context(kafka)
        if not settings.redis_url:
            started["redis_url"] = stack.enter_context(_private_redis(settings, redis_port))
        if settings.metrics_port:
            started["metrics_port"] = stack.enter_context(reserved_base_port(settings))
        ready = settings.model_copy(update=started)
        create_topics(ready.kafka_config(), topics(ready.event_partitions))
        stack.enter_context(write_addresses(ready))
        yield ready


@contextmanager
def _private_redis(settings: Settings, port: int) -> Iterator[str]:
    """Run a Redis with a random password. Its URL is in a file that only the owner can read."""
    data_dir, password = settings.data_dir.resolve(), secrets.token_urlsafe(24)
    keep = bool(settings.bootstrap_servers) or is_apache(settings.kafka_home, settings.broker)
    with start_redis(data_dir / "redis", port, keep, password) as url:
        file = data_dir / REDIS_URL_FILE
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(url + "\n")
        try:
            yield url
        finally:
            file.unlink(missing_ok=True)
