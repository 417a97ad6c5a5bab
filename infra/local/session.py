"""Runs the whole system on this machine during a context: broker, Redis, topics and the four flows."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from features.redis_address import connect
from infra.local.services import start_services
from infra.local.supervisor import RestartPolicy, Supervisor
from infra.monitor.lag import LagReader
from infra.settings import Settings


class Session(NamedTuple):
    """Handles of a running system."""

    settings: Settings  # with the addresses of the started services
    flows: Supervisor
    lags: LagReader
    redis: Any  # Redis client that decodes responses to str


@contextmanager
def run_session(settings: Settings, restart_policy: RestartPolicy | None = None) -> Iterator[Session]:
    """Start everything and stop it at the end of the context. Raises PremiereError if a part does not start."""
    with ExitStack() as stack:
        ready = stack.enter_context(start_services(settings))
        lags = stack.enter_context(LagReader(ready.kafka_config()))
        client = connect(ready.require_redis_url(), decode_responses=True)
        stack.callback(client.close)
        yield Session(
            ready,
            stack.enter_context(Supervisor(ready, restart_policy=restart_policy or RestartPolicy())),
            lags,
            client,
        )
