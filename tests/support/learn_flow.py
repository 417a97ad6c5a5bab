"""Shared by tests."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from bytewax.testing import run_main
from confluent_kafka import Producer

from infra.run.learn import learn
from infra.settings import Settings
from infra.topics import create
from streaming.kafka.source import Message, read_all
from streaming.records import Version, decode_version
from streaming.topics import ACTIVITY, MODEL_VERSIONS, topics
from tests.support.kafka import OwnKafka
from tests.support.learner import Log
from tests.support.streams import deadline

SINCE: Final = round(time.time() * 1000) - 2 * 86_400_000 - Log().at


@pytest.fixture
def settings(own_kafka: OwnKafka, tmp_path: Path) -> Iterator[Settings]:
    """A broker of its own, for the topics have their real names."""
    with own_kafka(tmp_path / "kafka") as address:
        create({"bootstrap.servers": address}, topics())
        yield Settings(bootstrap_servers=address, data_dir=tmp_path, checkpoint_seconds=2, threads=1)


def produce(settings: Settings, messages: Sequence[Message]) -> None:
    producer = Producer(settings.kafka())
    for message in messages:
        producer.produce(ACTIVITY, message.value, message.key, 0, timestamp=message.appended + SINCE)
    assert producer.flush(10) == 0


def announced(settings: Settings) -> list[Version]:
    return [decode_version(message.value or b"") for message in read_all(settings.kafka(), MODEL_VERSIONS)]


def run_until(settings: Settings, versions: int) -> None:
    """The flow as `premiere run learn` makes it, stopped once so many versions have been announced."""
    stop = threading.Event()

    def watch() -> None:
        late = deadline(120)
        while len(announced(settings)) < versions and not late():
            stop.wait(0.1)
        stop.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        made = learn(settings, stop)
        run_main(made.dataflow)
        for source in made.sources:
            source.commit()
    finally:
        stop.set()
        watcher.join()
