"""What the tests of streams share: topics, producers, sinks in memory."""

import time
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import Consumer, Producer, TopicPartition

from infra.topics import create
from streaming.kafka.source import KafkaSource, Message
from streaming.topics import Topic

EPOCH = timedelta(milliseconds=50)


class _Kept(StatefulSinkPartition[list[Message], tuple[Message, ...]]):
    """What was written, as far as it is durable: a crash takes the rest back."""

    def __init__(self, kept: list[Message], resume: tuple[Message, ...] | None) -> None:
        self.kept = kept
        self.kept[:] = resume or ()

    def write_batch(self, values: list[list[Message]]) -> None:
        for poll in values:
            self.kept += poll

    def snapshot(self) -> tuple[Message, ...]:
        return tuple(self.kept)


class KeptSink(FixedPartitionedSink[list[Message], tuple[Message, ...]]):
    """One list for all polls."""

    def __init__(self, kept: list[Message]) -> None:
        self.kept = kept

    def list_parts(self) -> list[str]:
        return ["all"]

    def build_part(self, step_id: str, for_part: str, resume_state: tuple[Message, ...] | None) -> _Kept:
        return _Kept(self.kept, resume_state)


def new_topic(config: dict[str, str], count: int) -> str:
    name = f"kafka-{uuid.uuid4().hex[:12]}"
    create(config, [Topic(name, count, {})])
    return name


def produce(config: dict[str, str], topic: str, values: Iterable[int], partition: int = 0) -> None:
    """As one batch, wherever the client can: Tansu tells the base of the last one as the log's end."""
    producer = Producer({**config, "linger.ms": 100})
    for value in values:
        producer.produce(topic, str(value).encode(), b"k", partition)
    assert producer.flush(10) == 0


def flow(
    source: KafkaSource, kept: list[Message], each: Callable[[list[Message]], None] = lambda poll: None
) -> Dataflow:
    """Every poll into `kept`, after `each` has seen it."""

    def keyed(poll: list[Message]) -> tuple[str, list[Message]]:
        each(poll)
        return "all", poll

    dataflow = Dataflow("test")
    polls = op.input("polls", dataflow, source)
    op.output("kept", op.map("keyed", polls, keyed), KeptSink(kept))
    return dataflow


def numbers(messages: Iterable[Message]) -> list[int]:
    return [int(message.value or b"") for message in messages]


def group_offset(config: dict[str, str], group: str, topic: str, partition: int = 0) -> int:
    consumer = Consumer({**config, "group.id": group})
    try:
        (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=10)
    finally:
        consumer.close()
    return int(found.offset)


def poll_until(part: Any, enough: Callable[[list[Message]], bool]) -> list[Message]:
    """All that a partition brings meanwhile (within a minute at most)."""
    messages: list[Message] = []
    late = deadline(60)
    while not (enough(messages) or late()):
        for poll in part.next_batch():
            messages += poll
        time.sleep(0.005)
    return messages


def deadline(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end
