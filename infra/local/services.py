"""Starts the services that the settings do not name: broker, Redis, topics and metrics ports.

`premiere up` and the demo use it. Other commands find the addresses in a file (`infra.local.address_file`).
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from infra.errors import SettingsError
from infra.local.address_file import local_services, write_addresses
from infra.local.embedded import start_kafka, start_redis
from infra.monitor.metrics_server import reserved_base_port
from infra.settings import Settings
from infra.topics import create_topics
from streaming.topics import topics

REDIS_URL_FILE: Final = "redis-url"  # in data_dir


@contextmanager
def start_services(settings: Settings) -> Iterator[Settings]:
    """Run the services during the context and yield the settings with their addresses.

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
            kafka = start_kafka(settings.data_dir.resolve() / "kafka", settings.kafka_home, settings.broker)
            started["bootstrap_servers"] = stack.enter_context(kafka)
        if not settings.redis_url:
            started["redis_url"] = stack.enter_context(_private_redis(settings.data_dir.resolve()))
        if settings.metrics_port:
            started["metrics_port"] = stack.enter_context(reserved_base_port(settings))
        ready = settings.model_copy(update=started)
        create_topics(ready.kafka_config(), topics(ready.event_partitions))
        stack.enter_context(write_addresses(ready))
        yield ready


@contextmanager
def _private_redis(data_dir: Path) -> Iterator[str]:
    """Run a Redis with a random password. Its URL is in a file that only the owner can read."""
    with start_redis(data_dir / "redis", password=secrets.token_urlsafe(24)) as url:
        file = data_dir / REDIS_URL_FILE
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(url + "\n")
        try:
            yield url
        finally:
            file.unlink(missing_ok=True)
