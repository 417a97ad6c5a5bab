"""Fixtures for a real broker and a real Redis, shared by the whole test run, and for a new topic per test.

The services are embedded by default. `KAFKA_BOOTSTRAP_SERVERS` (a running broker), `KAFKA_HOME` (an Apache Kafka to
start) and `REDIS_URL` select others. `BROKERS=embedded,apache` runs each test that needs a broker on both, and tests
marked `long` only on the last one. `UNIT_BROKERS` does the same for the unit tests; they start so many brokers that a
run on Apache Kafka takes minutes more. Topics and ids are unique, so that tests can share a broker. A test that needs
the real topic names starts its own broker.
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
from infra.topics import create_topics
from streaming.topics import Topic, topics
from tests.support.kafka import KAFKA_HOME, StartBroker
from tests.support.versions import Deployment, run_deployment

BROKERS: Final = tuple(filter(None, os.environ.get("BROKERS", "").split(",")))
UNIT_BROKERS: Final = tuple(filter(None, os.environ.get("UNIT_BROKERS", "").split(","))) or BROKERS

UNIT_TESTS: Final = Path(__file__).parent / "unit"

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT otherwise


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With `BROKERS`, run each test that needs a broker on each of them; a test marked `long` only on the last."""
    is_unit = UNIT_TESTS in metafunc.definition.path.parents
    brokers = UNIT_BROKERS if is_unit else BROKERS
    if brokers and "broker" in metafunc.fixturenames:
        brokers = brokers[-1:] if metafunc.definition.get_closest_marker("long") else brokers
        metafunc.parametrize("broker", brokers, indirect=True, scope="session")


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    """The folder of an Apache Kafka; skips the test if there is none."""
    if KAFKA_HOME is None:
        pytest.skip("no Apache Kafka: KAFKA_HOME names none, or there is no Java")
    return KAFKA_HOME


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of broker that the tests start; the settings read it from the environment."""
    kind = getattr(request, "param", "")
    with pytest.MonkeyPatch.context() as patch:
        if kind:
            assert kind in ("embedded", "apache"), f"BROKERS contains {kind}: only embedded and apache are valid"
            patch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
            patch.delenv("KAFKA_HOME", raising=False)
        if kind == "apache":
            patch.setenv("KAFKA_HOME", str(request.getfixturevalue("kafka_home")))
        yield kind


@pytest.fixture(scope="session")
def start_broker(broker: str) -> StartBroker:
    """A function that starts a new broker of the selected kind, for tests that need the real topic names."""
    home = os.environ.get("KAFKA_HOME")
    return partial(start_kafka, kafka_home=Path(home) if home else None)


@pytest.fixture(scope="session")
def kafka(start_broker: StartBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap address of the shared broker."""
    if running := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield running
        return
    with start_broker(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture
def new_kafka(start_broker: StartBroker, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The client configuration of a new broker with the project's topics, for a test that needs their real names."""
    with start_broker(tmp_path / "kafka") as address:
        create_topics({"bootstrap.servers": address}, topics())
        yield {"bootstrap.servers": address}


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the shared Redis; tests must use unique ids."""
    if running := os.environ.get("REDIS_URL"):
        yield running
        return
    with start_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def topic(kafka: str, request: pytest.FixtureRequest) -> str:
    """A new topic of one partition, named after the test. It keeps records with times of years ago, as tests use."""
    name = f"{request.node.originalname[:100]}-{uuid.uuid4().hex[:8]}"
    create_topics({"bootstrap.servers": kafka}, [Topic(name, 1, {"retention.ms": "-1"})])
    return name


@pytest.fixture(scope="module")
def deployment(start_broker: StartBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Announced versions with their checkpoints and learner log, on a broker of their own."""
    with run_deployment(start_broker, tmp_path_factory.mktemp("versions")) as found:
        yield found


@pytest.fixture
def learned(deployment: Deployment) -> Deployment:
    """The deployment with its original checkpoints."""
    deployment.restore()
    return deployment
