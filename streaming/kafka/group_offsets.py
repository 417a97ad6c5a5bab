"""Commits offsets to a consumer group, without waiting while a flow runs and with a bounded wait at its end."""

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streaming.kafka.reconnect import Outage

RECOMMIT_INTERVAL_S: Final = 60.0  # an unchanged offset is committed again after this, because idle groups expire
FINAL_COMMIT_TIMEOUT_S: Final = 1.0  # how long a flow that has ended waits for the broker before its last commit

log: Final = logging.getLogger(__name__)


class GroupPosition:
    """The committed offset of one partition. Commits are asynchronous, at most one at a time.

    So commits do not pile up while the broker is unavailable.
    """

    def __init__(self, topic: str, partition: int, outage: Outage) -> None:
        self.topic, self.partition, self.outage = topic, partition, outage
        self.offset = -1  # of the last commit that was sent; -1: send the next one in any case
        self.sent_at = 0.0  # monotonic seconds of the last commit
        self.in_flight = False

    def commit(self, consumer: Consumer, offset: int) -> None:
        """Commit, unless the offset is unchanged or an earlier commit is in flight. In that case the next call commits.

        During an outage every call commits: this is how a partition without new records notices that the broker is
        back.
        """
        now = time.monotonic()
        if self.in_flight:
            return
        if offset != self.offset or self.outage.active or now - self.sent_at > RECOMMIT_INTERVAL_S:
            self.offset, self.sent_at, self.in_flight = offset, now, True
            consumer.commit(offsets=[TopicPartition(self.topic, self.partition, offset)], asynchronous=True)

    def on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """The client's commit callback."""
        self.in_flight = False
        if error is None:
            self.outage.end()
        else:
            self.offset = -1
            self.outage.begin(error)


def commit_offsets(config: Mapping[str, Any], topic: str, offsets: Mapping[int, int]) -> None:
    """Commit the next offset of each partition to the group in `config`, and wait for it. Failures are only logged."""
    if not offsets:
        return
    consumer = Consumer({**config})
    try:
        positions = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        # Without this check a commit waits 45 s for a broker that is unavailable (measured).
        consumer.list_topics(topic, timeout=FINAL_COMMIT_TIMEOUT_S)
        consumer.commit(offsets=positions, asynchronous=False)
    except KafkaException as error:
        log.warning("%s: the last offsets were not committed (%s).", topic, error.args[0].str())
    finally:
        consumer.close()
