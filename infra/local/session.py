"""The whole loop on this machine while a context lasts: broker, Redis, topics, the four flows, and ways to look."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import redis

from infra.local.services import services
from infra.local.supervisor import Restarts, Supervisor
from infra.monitor.lag import Lags
from infra.settings import Settings


class Session(NamedTuple):
    """What runs."""

    settings: Settings  # with the addresses of what was started
    flows: Supervisor
    lags: Lags
    redis: Any  # a client that decodes


@contextmanager
def running(settings: Settings, patience: Restarts | None = None) -> Iterator[Session]:
    """Start everything, and stop it on leaving, whatever happens. Raises PremiereError where something cannot start."""
    with ExitStack() as stack:
        ready = stack.enter_context(services(settings))
        lags = stack.enter_context(Lags(ready.kafka()))
        client = redis.Redis.from_url(ready.redis(), decode_responses=True)
        stack.callback(client.close)
        yield Session(ready, stack.enter_context(Supervisor(ready, patience=patience or Restarts())), lags, client)
