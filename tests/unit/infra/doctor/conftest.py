"""A working deployment for the checks of `premiere doctor`."""

from collections.abc import Iterator

import pytest
from redis import Redis

from infra.local.embedded import start_redis
from infra.settings import Settings
from infra.topics import create_topics
from streaming.topics import topics
from tests.support.kafka import StartBroker


@pytest.fixture(scope="module")
def settings(start_broker: StartBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("doctor")
    with start_broker(folder / "kafka") as address, start_redis(folder / "redis", keep=True) as url:
        made = Settings(data_dir=folder / "data", bootstrap_servers=address, redis_url=url, metrics_port=29_400)
        create_topics(made.kafka_config(), topics())
        with Redis.from_url(url) as client:
            client.config_set("maxmemory", 64 << 20)
            client.config_set("maxmemory-policy", "volatile-ttl")
        yield made
