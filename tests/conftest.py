"""A real broker and a real Redis for the whole run, and a topic of its own for each test that wants one.

`KAFKA_BOOTSTRAP_SERVERS` (a running broker) or `KAFKA_HOME` (an Apache Kafka to start) and `REDIS_URL` choose others
than the embedded ones: the same tests run on both. Topics and ids are unique, so tests share a broker without meeting.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded import start_kafka, start_redis
from infra.topics import create
from streaming.topics import Topic


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of a broker."""
    if running := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield running
        return
    home = os.environ.get("KAFKA_HOME")
    with start_kafka(tmp_path_factory.mktemp("kafka"), Path(home) if home else None) as address:
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
