"""Starts the services that the settings do not name: broker, Redis, topics and metrics ports.

`premiere up` and the demo use it. The addresses are written to `running.json` in the data folder, where the other
commands find them.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from infra.errors import SettingsError
from infra.local.embedded import start_kafka, start_redis
from infra.local.supervisor import FLOWS
from infra.monitor.metrics_server import free_base_port
from infra.settings import ADDRESS_FILE, ADDRESS_FILE_FORMAT, Settings, local_services
from infra.topics import create_topics
from streaming.topics import topics


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
            started["redis_url"] = stack.enter_context(start_redis(settings.data_dir.resolve() / "redis"))
        if settings.metrics_port:
            started["metrics_port"] = free_base_port(settings)
        ready = settings.model_copy(update=started)
        create_topics(ready.kafka_config(), topics(ready.event_partitions))
        stack.enter_context(_address_file(ready))
        yield ready


@contextmanager
def _address_file(settings: Settings) -> Iterator[None]:
    """Keep the addresses in the data folder during the context, readable by the owner: a URL may contain a password."""
    path = settings.data_dir / ADDRESS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    workers = [f"{flow}_workers" for flow in FLOWS if settings.worker_count(flow) > 1]
    names = ("bootstrap_servers", "redis_url", "metrics_port", *workers)
    addresses = {name: getattr(settings, name) for name in names}
    new.write_text(json.dumps({"format": ADDRESS_FILE_FORMAT, "pid": os.getpid(), **addresses}))
    os.replace(new, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
