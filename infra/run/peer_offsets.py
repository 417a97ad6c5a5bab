"""The consumer group `publish` where several processes share its viewers: the smallest position of all of them.

Each worker but the first commits to a group of its own, `publish-1-of-3` and so on. The first asks for those once a
second and commits the smallest of all, its own included, to `publish`. So that group is never ahead of any worker,
whichever dies when, and wherever they run. A group that a former number of workers left behind is not asked.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.run.workers import Worker
from streaming.kafka.client import consuming

GROUP: Final = "publish"
EVERY: Final = 1.0  # seconds between two questions
TIMEOUT: Final = 5.0  # seconds for the broker's answer

log: Final = logging.getLogger(__name__)


def group(worker: Worker) -> str:
    """The consumer group that a worker commits to."""
    return GROUP if worker.index == 0 else f"{GROUP}-{worker.index}-of-{worker.count}"


class PeerOffsets:
    """The committed offsets of the other workers, asked for by a thread until `stop`; each topic's only partition."""

    def __init__(self, config: Mapping[str, str], topics: Sequence[str], count: int, stop: threading.Event) -> None:
        self.config, self.topics, self.stop = dict(config), topics, stop
        self.groups = [group(Worker(index, count)) for index in range(1, count)]
        self.least: dict[str, int] = {}  # topic -> the smallest, where all have committed
        if self.groups:
            threading.Thread(target=self._follow, name="shares", daemon=True).start()

    def _follow(self) -> None:
        consumers = [Consumer(consuming(self.config, name)) for name in self.groups]
        try:
            while True:
                self._ask(consumers)
                if self.stop.wait(EVERY):
                    return
        finally:
            for consumer in consumers:
                consumer.close()

    def _ask(self, consumers: Sequence[Consumer]) -> None:
        asked = [TopicPartition(topic, 0) for topic in self.topics]
        try:
            found = [consumer.committed(asked, TIMEOUT) for consumer in consumers]
        except KafkaException as error:  # what was known stays true, for positions only rise
            log.info("The other workers' positions are not known (%s).", error.args[0].str())
            return
        for of_topic in zip(*found, strict=True):
            if all(one.offset >= 0 for one in of_topic):
                self.least[of_topic[0].topic] = min(one.offset for one in of_topic)


class MinOffset(Mapping[int, int]):
    """The smallest position of all workers on a topic, by partition; nothing where one of them is not known."""

    def __init__(self, own: Mapping[int, int], others: PeerOffsets, topic: str) -> None:
        self.own, self.others, self.topic = own, others, topic

    def __getitem__(self, partition: int) -> int:
        own = self.own[partition]
        return min(own, self.others.least[self.topic]) if self.others.groups else own

    def __iter__(self) -> Iterator[int]:
        known = not self.others.groups or self.topic in self.others.least
        return iter(list(self.own) if known else [])

    def __len__(self) -> int:
        return len(list(iter(self)))
