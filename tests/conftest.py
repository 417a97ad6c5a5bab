"""A real broker and a real Redis for the whole run, and a topic of its own for each test that wants one.

`KAFKA_BOOTSTRAP_SERVERS` (a running broker) or `KAFKA_HOME` (an Apache Kafka to start) and `REDIS_URL` choose others
than the embedded ones: the same tests run on both. `BROKERS=embedded,apache` runs what needs a broker on each in turn,
and what takes long on the last of them.
Topics and ids are unique, so tests share a broker without meeting; a test of topics with their real names starts a
broker of its own.
"""

import os
import signal
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from infra.local.embedded import start_kafka, start_redis
from infra.topics import create
from streaming.topics import Topic
from tests.support.kafka import HOME, OwnKafka

BROKERS: Final = tuple(filter(None, os.environ.get("BROKERS", "").split(",")))

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and all it starts, would ignore it


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With `BROKERS`, each test that needs a broker is one test on each; one marked `long` is one on the last alone."""
    if BROKERS and "broker" in metafunc.fixturenames:
        brokers = BROKERS[-1:] if metafunc.definition.get_closest_marker("long") else BROKERS
        metafunc.parametrize("broker", brokers, indirect=True, scope="session")


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    """The folder of an Apache Kafka."""
    if HOME is None:
        pytest.skip("no Apache Kafka: KAFKA_HOME names none, or there is no Java")
    return HOME


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of broker that everything starts meanwhile; it is in the environment, where the settings find it."""
    chosen = getattr(request, "param", "")
    with pytest.MonkeyPatch.context() as patch:
        if chosen:
            assert chosen in ("embedded", "apache"), f"BROKERS names {chosen}: embedded and apache can be had"
            patch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
            patch.delenv("KAFKA_HOME", raising=False)
        if chosen == "apache":
            patch.setenv("KAFKA_HOME", str(request.getfixturevalue("kafka_home")))
        yield chosen


@pytest.fixture(scope="session")
def own_kafka(broker: str) -> OwnKafka:
    """Starts a broker of the kind that was chosen, for tests of topics with their real names."""
    home = os.environ.get("KAFKA_HOME")
    return partial(start_kafka, kafka_home=Path(home) if home else None)


@pytest.fixture(scope="session")
def kafka(own_kafka: OwnKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a broker."""
    if running := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield running
        return
    with own_kafka(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis. Several tests share it: use ids of your own."""
    if running := os.environ.get("REDIS_URL"):
        yield running
        return
    with start_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def topic(kafka: str, request: pytest.FixtureRequest) -> str:
    """A new topic of one partition, named after the test."""
    name = f"{request.node.originalname[:100]}-{uuid.uuid4().hex[:8]}"
    create({"bootstrap.servers": kafka}, [Topic(name, 1, {})])
    return name
