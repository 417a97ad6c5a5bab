"""The flow `learn` on a real broker."""

import threading
import time
from collections.abc import Sequence
from typing import Final

from bytewax.testing import run_main
from confluent_kafka import Producer

from infra.run.learn import learn
from infra.settings import Settings
from streaming.kafka.client import producer_config, topic_name
from streaming.kafka.source import Message, read_all
from streaming.records import Version, decode_version
from streaming.topics import ACTIVITY, MODEL_VERSIONS
from tests.support.learner import LogBuilder
from tests.support.streams import deadline

TIME_SHIFT_MS: Final = round(time.time() * 1000) - 2 * 86_400_000 - LogBuilder().record_time


def produce(settings: Settings, messages: Sequence[Message]) -> None:
    config = settings.kafka_config()
    producer, name = Producer(producer_config(config)), topic_name(config, ACTIVITY)
    for message in messages:
        producer.produce(name, message.value, message.key, 0, timestamp=message.appended + TIME_SHIFT_MS)
    assert producer.flush(10) == 0


def announced_versions(settings: Settings) -> list[Version]:
    return [decode_version(message.value or b"") for message in read_all(settings.kafka_config(), MODEL_VERSIONS)]


def run_until_announced(settings: Settings, versions: int) -> None:
    """Run the flow like `premiere run learn`, and stop it once this many versions have been announced."""
    stop = threading.Event()

    def stop_when_announced() -> None:
        is_late = deadline(120)
        while len(announced_versions(settings)) < versions and not is_late():
            stop.wait(0.1)
        stop.set()

    watcher = threading.Thread(target=stop_when_announced)
    watcher.start()
    try:
        made = learn(settings, stop)
        run_main(made.dataflow)
        for source in made.sources:
            source.commit()
    finally:
        stop.set()
        watcher.join()
