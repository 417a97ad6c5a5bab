"""Reads Kafka topics into a dataflow; `streaming/kafka/sink.py` writes them.

The engine's own connectors do not close these gaps, so Premiere has its own:
- A snapshot always holds a real offset, never a sentinel, and errors do not move it.
- The source waits while a broker is unavailable, and raises an error when waiting cannot help.
- It commits to a consumer group one epoch late. The engine has saved the previous epoch by then, so the group is never
  ahead of the recovery state. An item of the stream is one poll: a list of messages of one partition.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import Consumer, KafkaError, TopicPartition

from streaming.commit_metrics import PartitionMetrics
from streaming.errors import OffsetOutOfRangeError
from streaming.heartbeat import beat
from streaming.kafka import client, reconnect
from streaming.kafka.commit_position import SNAPSHOT_FORMAT, DurablePosition, ReadPosition, Snapshot, start_offset
from streaming.kafka.group_offsets import GroupPosition, commit_offsets

log: Final = logging.getLogger(__name__)
POLL_INTERVAL_S: Final = 0.01  # between two polls of a partition whose queue was empty
CLOSE_TIMEOUT_S: Final = 0.5  # for all consumers of a source together
OUT_OF_RANGE_TIMEOUT: Final = timedelta(seconds=10)  # because a new leader may lag for a moment


class Message(NamedTuple):
    """A record as it was read from a topic."""

    topic: str
    partition: int
    offset: int
    appended: int  # Kafka record time, ms
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class KafkaSource(FixedPartitionedSource[list[Message], Snapshot]):
    """A topic as a stream of polls. A poll holds the messages of one partition.

    - start: where a dataflow without recovery state begins: the beginning of the log, or an offset per partition
    - tail: keep reading new records; without it the input ends at the present end of the log
    - idle: after this much silence in all partitions of this process, partition 0 yields an empty poll
    - batch: maximum number of messages in a poll
    - stop: once set, the input ends at the next poll, and the dataflow drains
    - position: what to commit to the group, if not the previous epoch's offsets
    - out_of_range_timeout: how long an offset beyond the end of the log is tolerated
    """

    def __init__(
        self,
        config: Mapping[str, str],
        topic: str,
        group: str,
        *,
        start: Mapping[int, int] | Literal["earliest"] = "earliest",
        tail: bool = True,
        idle: timedelta | None = None,
        batch: int = 1000,
        stop: threading.Event | None = None,
        position: DurablePosition | None = None,
        out_of_range_timeout: timedelta = OUT_OF_RANGE_TIMEOUT,
    ) -> None:
        self.kafka_config, self.config = config, client.consumer_config(config, group, topic)
        self.topic, self.tail, self.batch, self.position = topic, tail, batch, position
        self.start = {} if start == "earliest" else dict(start)
        self.stop, self.out_of_range_timeout_s = stop or threading.Event(), out_of_range_timeout.total_seconds()
        self.idle_s = idle.total_seconds() if idle is not None else float("inf")
        self.last_message_at = time.monotonic()  # in any partition that this process reads
        self.ends: dict[int, ReadPosition] = {}  # of each closed partition, for `commit`
        self.close_deadline = float("inf")  # monotonic seconds
        self.broker_probe = reconnect.BrokerProbe(self.config)
        self.end_probe = reconnect.LogEndProbe(config, topic)

    def list_parts(self) -> list[str]:
        """The topic's partitions. Raises BrokerUnavailableError, BrokerAccessError, TopicMissingError."""
        return [f"{partition:05d}" for partition in client.topic_partitions(self.kafka_config, self.topic)]

    def build_part(self, step_id: str, for_part: str, resume_state: Snapshot | None) -> "_Partition":
        """Open a partition at its recovered offset, else at `start`. Raises StreamError."""
        partition = int(for_part)
        return _Partition(self, partition, start_offset(resume_state, self.start.get(partition)))

    def commit(self) -> None:
        """Commit the final offsets. Call it after the dataflow has ended without an error: then all is durable."""
        offsets = ((partition, self.committable(partition, end, end.next)) for partition, end in self.ends.items())
        known = {partition: offset for partition, offset in offsets if offset is not None}
        commit_offsets(self.config, client.topic_name(self.kafka_config, self.topic), known)

    def committable(self, partition: int, read: ReadPosition, saved: int) -> int | None:
        """The offset to commit: without a `position`, up to which the engine has saved its state; None: nothing."""
        return saved if self.position is None else read.committable(self.position.get(partition))


class _Partition(StatefulSourcePartition[list[Message], Snapshot]):
    """One partition, with its own consumer."""

    def __init__(self, source: KafkaSource, partition: int, offset: int | None) -> None:
        self.source, self.topic, self.partition = source, source.topic, partition
        self.topic_name = client.topic_name(source.kafka_config, source.topic)  # on the broker
        self.outage = reconnect.Outage(f"{self.topic}[{partition}]")
        self.connection = reconnect.ReconnectingClient(self._new_client, self.outage)
        offset = client.earliest_offset(self.consumer, self.topic_name, partition) if offset is None else offset
        self.consumer.assign([TopicPartition(self.topic_name, partition, offset)])
        self.read = ReadPosition(offset)
        self.previous_offset = offset  # at the end of the previous epoch
        self.drained = self.ended = self.closed = False
        self.checked_at = self.silent_since = time.monotonic()
        self.out_of_range_s = 0.0
        self.metrics = PartitionMetrics(self.topic, partition, offset)

    @property
    def consumer(self) -> Consumer:
        return self.connection.current

    def _new_client(self, on_error: Callable[[KafkaError], None]) -> Consumer:
        """Create a client. Commits of the client that it replaces are ignored from now on."""
        self.group = group = GroupPosition(self.topic_name, self.partition, self.outage)

        def on_commit(error: KafkaError | None, offsets: list[TopicPartition]) -> None:
            if group is self.group:
                group.on_commit(error, offsets)

        return Consumer({**self.source.config, "error_cb": on_error, "on_commit": on_commit})

    def next_batch(self) -> list[list[Message]]:
        """One list of new messages, or none. Raises StreamError if waiting cannot help."""
        beat()
        if self.ended or self.source.stop.is_set():
            raise StopIteration
        messages = self._poll()
        self.drained = len(messages) < self.source.batch
        if messages:
            self.out_of_range_s = 0.0
            self.outage.end()
            self.source.last_message_at = self.silent_since = time.monotonic()
            self.metrics.read_offset.set(self.read.next)
            return [messages]
        self._check()
        if self.partition > 0 or time.monotonic() - self.source.last_message_at < self.source.idle_s:
            return []
        self.source.last_message_at = time.monotonic()
        return [[]]

    def next_awake(self) -> datetime | None:
        """Immediately if more messages may be queued, else at the next multiple of the poll interval.

        The interval avoids a busy loop. All partitions wake at the same moments, so records that arrived in between
        are processed together.
        """
        now = time.time()
        return datetime.fromtimestamp(now - now % POLL_INTERVAL_S + POLL_INTERVAL_S, UTC) if self.drained else None

    def snapshot(self) -> Snapshot:
        """The next offset. Also commits the offset of the previous epoch, which is durable by now."""
        if (offset := self.source.committable(self.partition, self.read, self.previous_offset)) is not None:
            self.group.commit(self.consumer, offset)
        self.previous_offset = self.read.next
        self.metrics.end_epoch()
        return SNAPSHOT_FORMAT, self.read.next

    def close(self) -> None:
        """Close the consumer."""
        if not self.closed:
            self.closed = True
            self.source.ends[self.partition] = self.read
            closing = threading.Thread(target=self.consumer.close, daemon=True)
            closing.start()
            # `close` waits for the answer to a commit, which an unavailable broker never gives. All partitions share
            # one deadline, so that their number does not matter.
            self.source.close_deadline = min(self.source.close_deadline, time.monotonic() + CLOSE_TIMEOUT_S)
            closing.join(max(0.0, self.source.close_deadline - time.monotonic()))

    def _poll(self) -> list[Message]:
        messages = []
        for record in self.consumer.consume(self.source.batch, 0):  # timeout 0: never block the worker
            if (error := record.error()) is None:
                messages.append(_message(record, self.topic))
                self.read.deliver(messages[-1].offset)
            elif error.code() == KafkaError._PARTITION_EOF:
                self.read.reach_end(int(record.offset() or 0))
                self.ended = not self.source.tail
                self.outage.end()
                self.metrics.reach_end()
            else:
                self._handle_error(error)
        return messages

    def _log_end(self) -> int:
        """The log's end as of the last fetch; negative before the first. A query to Tansu returns a lower offset."""
        return int(self.consumer.get_watermark_offsets(TopicPartition(self.topic_name, self.partition), cached=True)[1])

    def _check(self) -> None:
        """Once a second without messages: detect an offset beyond the end of the log, and a stale client.

        Tansu waits for such an offset forever instead of reporting an error.
        """
        now = time.monotonic()
        if (passed := now - self.checked_at) < 1:
            return
        self.checked_at = now
        beyond_end = 0 <= self._log_end() < self.read.next
        self.out_of_range_s = self.out_of_range_s + min(passed, 2) if beyond_end else 0.0
        if self.out_of_range_s > self.source.out_of_range_timeout_s:
            raise self._out_of_range_error(f"lies beyond its end, {self._log_end()}")
        if self._is_stale(now):
            self._replace_client(now)

    def _is_stale(self, now: float) -> bool:
        """Whether to replace the client. It is replaced after every outage, because it may be stale (see `reconnect`).

        Usually the client itself reports an outage and its end. If it does not, although a new client reached the
        broker or saw more records some time ago, the client is stale.
        """
        if not self.outage.active:
            return self.connection.may_be_stale or self._misses_records(now)
        if self.source.broker_probe.answered_at < self.outage.since:
            self.source.broker_probe.start()
            return False
        return now - self.source.broker_probe.answered_at > reconnect.STALE_CLIENT_S

    def _misses_records(self, now: float) -> bool:
        """Whether nothing has arrived since a new client saw that the log goes on, at least one probe ago."""
        self.source.end_probe.start(now)
        ends = self.source.end_probe.previous
        return self.silent_since < ends.asked_at and self.read.next < ends.offsets.get(self.partition, 0)

    def _replace_client(self, now: float) -> None:
        """Continue with a new client. It fetches again whatever the old one had queued."""
        if self.outage.active or not self.connection.may_be_stale:
            log.warning("%s: the client is stale (the broker answers a new client); replacing it.", self.outage.name)
        self.connection.replace()
        self.silent_since = now
        self.consumer.assign([TopicPartition(self.topic_name, self.partition, self.read.next)])

    def _handle_error(self, error: KafkaError) -> None:
        """Wait, because the client retries with back-off, or raise StreamError."""
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise self._out_of_range_error("is not in it")
        client.raise_unless_temporary(error, self.source.kafka_config, self.topic)
        self.outage.begin(error)

    def _out_of_range_error(self, how: str) -> OffsetOutOfRangeError:
        return OffsetOutOfRangeError(
            f"Offset {self.read.next} of {self.topic}[{self.partition}] {how}: retention deleted it, or the topic was "
            "recreated. Remove the flow's recovery folder to restart it from the beginning of the log, or give it an "
            "offset that exists."
        )


def read_all(config: Mapping[str, str], topic: str, start: Mapping[int, int] | None = None) -> Iterator[Message]:
    """Yield a topic's messages from its beginning, or from an offset per partition, to its present end.

    Order is kept within a partition. Raises StreamError.
    """
    consumer = Consumer(client.consumer_config(config, "premiere-read-all", topic))
    name = client.topic_name(config, topic)
    try:
        unfinished, given = set(client.topic_partitions(config, topic)), start or {}
        offsets = {n: given[n] if n in given else client.earliest_offset(consumer, name, n) for n in unfinished}
        consumer.assign([TopicPartition(name, partition, offset) for partition, offset in offsets.items()])
        silence_s = 0.0
        while unfinished:
            records = consumer.consume(1000, 0.1)
            silence_s = 0.0 if records else silence_s + 0.1
            if silence_s > client.BROKER_TIMEOUT_S:
                raise client.broker_unavailable_error(config, "no data")
            for record in records:
                if (error := record.error()) is None:
                    yield _message(record, topic)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(record.partition())
                else:
                    client.raise_unless_temporary(error, config, topic)
    finally:
        consumer.close()


def _message(record: Any, topic: str) -> Message:
    position = topic, record.partition(), record.offset(), record.timestamp()[1]
    return Message(*position, record.key(), record.value(), record.headers() or ())
