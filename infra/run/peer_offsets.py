"""Commits the smallest offset of all workers of `publish` to its consumer group.

Several workers of `publish` share the users, so the group's offset must not be ahead of any worker. Each worker except
the first commits to its own group (`publish-1-of-3`, ...). The first worker reads these groups once a second and
commits the smallest offset, including its own, to `publish`. Groups of an earlier number of workers are ignored.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.run.workers import Worker
from streaming.kafka.client import consumer_config, topic_name
from streaming.kafka.commit_position import DurablePosition
from streaming.kafka.reconnect import ReconnectingClient

PUBLISH_GROUP: Final = "publish"
READ_INTERVAL_S: Final = 1.0
BROKER_TIMEOUT_S: Final = 5.0  # per request to the broker

log: Final = logging.getLogger(__name__)


def worker_group_id(worker: Worker) -> str:
    """The consumer group that a worker commits to."""
    return PUBLISH_GROUP if worker.index == 0 else f"{PUBLISH_GROUP}-{worker.index}-of-{worker.count}"


class PeerOffsets:
    """The smallest committed offset of the other workers, for topics with one partition. A thread updates it."""

    def __init__(self, config: Mapping[str, str], topics: Sequence[str], count: int, stop: threading.Event) -> None:
        self.config, self.topics, self.stop = dict(config), topics, stop
        self.groups = [worker_group_id(Worker(index, count)) for index in range(1, count)]
        self.min_offsets: dict[str, int] = {}  # topic -> smallest offset; missing until all workers have committed
        if self.groups:
            threading.Thread(target=self._read_until_stopped, name="peer offsets", daemon=True).start()

    def _read_until_stopped(self) -> None:
        clients = ReconnectingClient(lambda _: self._connect())
        while True:
            if not self._read(clients.current):
                clients.replace()
            if self.stop.wait(READ_INTERVAL_S):
                return clients.discard()

    def _connect(self) -> list[Consumer]:
        return [Consumer(consumer_config(self.config, name)) for name in self.groups]

    def _read(self, consumers: Sequence[Consumer]) -> bool:
        """Returns whether Kafka answered."""
        partitions = [TopicPartition(topic_name(self.config, topic), 0) for topic in self.topics]
        try:
            committed = [consumer.committed(partitions, BROKER_TIMEOUT_S) for consumer in consumers]
        except KafkaException as error:  # the last values stay valid lower bounds, since offsets only increase
            log.info("Cannot read the committed offsets of the other workers (%s).", error.args[0].str())
            return False
        for topic, of_topic in zip(self.topics, zip(*committed, strict=True), strict=True):
            if all(one.offset >= 0 for one in of_topic):
                self.min_offsets[topic] = min(one.offset for one in of_topic)
        return True


class MinOffset:
    """The smallest commit position of all workers on a topic. A source commits it like its own `CommitPosition`."""

    def __init__(self, own_position: DurablePosition, peers: PeerOffsets, topic: str) -> None:
        self.own_position, self.peers, self.topic = own_position, peers, topic

    def get(self, partition: int) -> int | None:
        """The smallest next offset of a partition, or None while the position of any worker is unknown."""
        own = self.own_position.get(partition)
        if not self.peers.groups or own is None:
            return own
        peer = self.peers.min_offsets.get(self.topic)
        return None if peer is None else min(own, peer)
