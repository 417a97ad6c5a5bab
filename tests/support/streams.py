"""Helpers for streaming tests: topics, producers and sinks in memory."""

import time
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import Consumer, Producer, TopicPartition

from infra.topics import create_topics
from streaming.kafka.client import producer_config
from streaming.kafka.source import KafkaSource, Message
from streaming.topics import Topic

EPOCH_INTERVAL = timedelta(milliseconds=50)


class _MemoryPartition(StatefulSinkPartition[list[Message], tuple[Message, ...]]):
    """Keeps the messages that are durable: a crash discards those written after the last snapshot."""

    def __init__(self, messages: list[Message], resume: tuple[Message, ...] | None) -> None:
        self.messages = messages
        self.messages[:] = resume or ()

    def write_batch(self, values: list[list[Message]]) -> None:
        for poll in values:
            self.messages += poll

    def snapshot(self) -> tuple[Message, ...]:
        return tuple(self.messages)


class MemorySink(FixedPartitionedSink[list[Message], tuple[Message, ...]]):
    """Appends all polls to one list."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages

    def list_parts(self) -> list[str]:
        return ["all"]

    def build_part(self, step_id: str, for_part: str, resume_state: tuple[Message, ...] | None) -> _MemoryPartition:
        return _MemoryPartition(self.messages, resume_state)


def new_topic(config: dict[str, str], count: int) -> str:
    name = f"kafka-{uuid.uuid4().hex[:12]}"
    create_topics(config, [Topic(name, count, {})])
    return name


def produce(config: dict[str, str], topic: str, values: Iterable[int], partition: int = 0) -> None:
    """Produce the values as one batch if the client can, because Tansu reports the last batch's base as the log end."""
    producer = Producer({**producer_config(config), "linger.ms": 100})
    for value in values:
        producer.produce(topic, str(value).encode(), b"k", partition)
    assert producer.flush(10) == 0


def flow(
    source: KafkaSource, messages: list[Message], on_poll: Callable[[list[Message]], None] = lambda poll: None
) -> Dataflow:
    """A dataflow that calls `on_poll` with each poll and appends its messages to `messages`."""

    def keyed(poll: list[Message]) -> tuple[str, list[Message]]:
        on_poll(poll)
        return "all", poll

    dataflow = Dataflow("test")
    polls = op.input("polls", dataflow, source)
    op.output("messages", op.map("keyed", polls, keyed), MemorySink(messages))
    return dataflow


def numbers(messages: Iterable[Message]) -> list[int]:
    return [int(message.value or b"") for message in messages]


def group_offset(config: dict[str, str], group: str, topic: str, partition: int = 0) -> int:
    consumer = Consumer({**config, "group.id": group})
    try:
        (committed,) = consumer.committed([TopicPartition(topic, partition)], timeout=10)
    finally:
        consumer.close()
    return int(committed.offset)


def poll_until(part: Any, done: Callable[[list[Message]], bool]) -> list[Message]:
    """Poll a partition until `done` returns true for the messages so far, for at most a minute."""
    messages: list[Message] = []
    is_late = deadline(60)
    while not (done(messages) or is_late()):
        for poll in part.next_batch():
            messages += poll
        time.sleep(0.005)
    return messages


def deadline(seconds: float) -> Callable[[], bool]:
    """A function that returns whether this much time has passed since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end
