"""Everything that the flows need, started where it is not given: a broker, a Redis, topics, ports for metrics.

`premiere up` and the demo run inside it. What runs is written to `running.json` in the data folder, so that the other
commands find it without being told.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from infra.errors import SettingsError
from infra.local.embedded import start_kafka, start_redis
from infra.local.supervisor import FLOWS
from infra.monitor.metrics_server import free_base
from infra.settings import RUNNING, RUNNING_FORMAT, Settings, running
from infra.topics import create
from streaming.topics import topics


@contextmanager
def services(settings: Settings) -> Iterator[Settings]:
    """The settings with the addresses of what was started; all of it is stopped on leaving.

    Raises SettingsError where another stack runs on the same data folder, ServiceError where something does not start.
    """
    if found := running(settings.data_dir):
        raise SettingsError(
            f"A `premiere up` on {settings.data_dir} is running (Kafka at {found['bootstrap_servers']}): "
            "stop it, or set PREMIERE_DATA_DIR to another folder."
        )
    if settings.broker and settings.bootstrap_servers:
        raise SettingsError(
            f"The broker at {settings.bootstrap_servers} is named and one of kind {settings.broker} is to be started: "
            "leave out PREMIERE_BOOTSTRAP_SERVERS (KAFKA_BOOTSTRAP_SERVERS), or --broker (PREMIERE_BROKER)."
        )
    with ExitStack() as stack:
        started: dict[str, object] = {}
        if not settings.bootstrap_servers:
            kafka = start_kafka(settings.data_dir.resolve() / "kafka", settings.kafka_home, settings.broker)
            started["bootstrap_servers"] = stack.enter_context(kafka)
        if not settings.redis_url:
            started["redis_url"] = stack.enter_context(start_redis(settings.data_dir.resolve() / "redis"))
        if settings.metrics_port:
            started["metrics_port"] = free_base(settings)
        ready = settings.model_copy(update=started)
        create(ready.kafka(), topics(ready.event_partitions))
        stack.enter_context(_announced(ready))
        yield ready


@contextmanager
def _announced(settings: Settings) -> Iterator[None]:
    """The addresses in the data folder while they hold. Readable by the owner only: a URL may hold a password."""
    path = settings.data_dir / RUNNING
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    workers = [f"{flow}_workers" for flow in FLOWS if settings.workers(flow) > 1]
    names = ("bootstrap_servers", "redis_url", "metrics_port", *workers)
    new.write_text(
        json.dumps({"format": RUNNING_FORMAT, "pid": os.getpid(), **{name: getattr(settings, name) for name in names}})
    )
    os.replace(new, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
