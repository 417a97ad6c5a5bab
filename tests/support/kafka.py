"""Kafka for the tests: the optional Apache Kafka, the type of the broker fixture, and committed offsets."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer, TopicPartition

StartBroker = Callable[[Path], AbstractContextManager[str]]  # folder -> context manager of a broker's address


def _home() -> Path | None:
    """The folder of an Apache Kafka, if there is one and a Java to run it."""
    home = Path(os.environ.get("KAFKA_HOME", "/nonexistent"))
    java = os.environ.get("JAVA_HOME") or shutil.which("java")
    return home if java and (home / "bin" / "kafka-server-start.sh").exists() else None


KAFKA_HOME: Final = _home()


def commit_offset(address: str, group: str, topic: str, offset: int, partition: int = 0) -> None:
    """Commit an offset for a consumer group."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": group, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
    consumer.close()
