"""Kafka into a dataflow, and nothing lost in between; `streaming/kafka/sink.py` is the way out.

The engine's own connectors have gaps, so these are ours. The source snapshots real offsets only, never a sentinel, and
errors do not move them; it waits out a broker that is gone, stops where waiting would be in vain, and commits to a
consumer group one epoch behind: what the engine has snapshotted once more is durable, so the group is never ahead. One
item is one poll: a list of messages of one partition.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import Consumer, KafkaError, TopicPartition

from streaming import commit_metrics
from streaming.kafka import client
from streaming.kafka.client import PositionLostError, StreamError

log: Final = logging.getLogger(__name__)

NAP: Final = 0.01  # seconds between two looks at a queue that was emptied
CLOSING: Final = 0.5  # seconds that the consumers of a source may take to say goodbye
PATIENCE: Final = timedelta(seconds=10)  # beyond the log's end before we say so: a new leader may lag for a moment
_FORMAT: Final = 1  # of a source's snapshot

_Position = tuple[int, int]  # format, offset of the next message


class Message(NamedTuple):
    """A record of a topic as it was read."""

    topic: str
    partition: int
    offset: int
    appended: int  # Kafka record time, ms
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class KafkaSource(FixedPartitionedSource[list[Message], _Position]):
    """A topic: one item per poll, the messages of one partition; an empty one after `idle` of silence everywhere.

    A new dataflow begins at `start`: the log's beginning, or an offset a partition. `stop`, once set, ends the input at
    the next poll, so that the dataflow drains. Without `tail` it ends at the present end of the log. Offsets go to the
    consumer group `group` one epoch late, or, with `durable`, as that mapping tells: next offset by partition.
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
        durable: Mapping[int, int] | None = None,
        patience: timedelta = PATIENCE,
    ) -> None:
        self.config = client.consuming(config, group)
        self.topic, self.tail, self.batch, self.durable = topic, tail, batch, durable
        self.start = {} if start == "earliest" else dict(start)
        self.stop, self.patience = stop or threading.Event(), patience.total_seconds()
        self.idle = idle.total_seconds() if idle is not None else float("inf")
        self.heard = time.monotonic()  # when any partition that this process reads last brought something
        self.reached: dict[int, int] = {}  # where partitions ended, for `commit`
        self.closing = float("inf")  # monotonic seconds: until when their consumers are waited for
        self.broker_probe = client.BrokerProbe(self.config)

    def list_parts(self) -> list[str]:
        """The topic's partitions. Raises BrokerSilentError, TopicMissingError."""
        return [f"{partition:05d}" for partition in client.partitions(self.config, self.topic)]

    def build_part(self, step_id: str, for_part: str, resume_state: _Position | None) -> "_Partition":
        """A partition, from where it was or from `start`. Raises StreamError."""
        partition = int(for_part)
        return _Partition(self, partition, _offset(resume_state, self.start.get(partition)))

    def commit(self) -> None:
        """Commit where the input ended. Call it once the dataflow has ended well: only then the last epoch is safe."""
        client.commit_offsets(self.config, self.topic, self.reached if self.durable is None else self.durable)


class _Partition(StatefulSourcePartition[list[Message], _Position]):
    """One partition, with a consumer of its own."""

    def __init__(self, source: KafkaSource, partition: int, offset: int | None) -> None:
        self.source, self.topic, self.partition = source, source.topic, partition
        self.outage = client.Outage(f"{self.topic}[{partition}]")
        self.clients = 0  # so far
        self.consumer = self._client()
        self.offset = client.beginning(self.consumer, self.topic, partition) if offset is None else offset
        self.consumer.assign([TopicPartition(self.topic, partition, self.offset)])
        self.safe = self.offset  # what the epoch before this one ended with
        self.drained = self.ended = self.closed = False
        self.checked = time.monotonic()
        self.stranded = 0.0  # seconds
        self.told = commit_metrics.Reader(self.topic, partition, self.offset)

    def _client(self) -> Consumer:
        """A new client. What one that it replaces still says is not heard."""
        self.clients += 1
        number, self.trusted = self.clients, self.outage.count
        self.group = group = client.GroupPosition(self.topic, self.partition, self.outage)

        def failed(error: KafkaError) -> None:
            if number == self.clients:
                self.outage.begin(error)

        def committed(error: KafkaError | None, offsets: list[TopicPartition]) -> None:
            if number == self.clients:
                group.answered(error, offsets)

        return Consumer({**self.source.config, "error_cb": failed, "on_commit": committed})

    def next_batch(self) -> list[list[Message]]:
        """What has come: one list of messages, or nothing. Raises StreamError where waiting would be in vain."""
        if self.ended or self.source.stop.is_set():
            raise StopIteration
        messages = self._poll()
        self.drained = len(messages) < self.source.batch
        if messages:
            self._advance(messages[-1].offset + 1)
            return [messages]
        self._check()
        if self.partition > 0 or time.monotonic() - self.source.heard < self.source.idle:
            return []
        self.source.heard = time.monotonic()
        return [[]]

    def next_awake(self) -> datetime | None:
        """At once where more may lie there, else at the next full NAP: no busy loop, and what comes meanwhile comes
        together, from all partitions, which wake at the same moments."""
        now = time.time()
        return datetime.fromtimestamp(now - now % NAP + NAP, UTC) if self.drained else None

    def snapshot(self) -> _Position:
        """The next offset; commits the one of the epoch before, which is durable by now."""
        durable = self.source.durable
        if (safe := self.safe if durable is None else durable.get(self.partition)) is not None:
            self.group.commit(self.consumer, safe)
        self.safe = self.offset
        self.told.epoch()
        return _FORMAT, self.offset

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            self.closed = True
            self.source.reached[self.partition] = self.offset
            closing = threading.Thread(target=self.consumer.close, daemon=True)
            closing.start()
            # It waits for the answer to a commit, which a broker that is gone does not give, however many ask.
            self.source.closing = min(self.source.closing, time.monotonic() + CLOSING)
            closing.join(max(0.0, self.source.closing - time.monotonic()))

    def _poll(self) -> list[Message]:
        messages = []
        for record in self.consumer.consume(self.source.batch, 0):  # 0: never block the worker
            if (error := record.error()) is None:
                messages.append(_message(record))
            elif error.code() == KafkaError._PARTITION_EOF:
                self.ended = not self.source.tail
                self.outage.end()
            else:
                self._failed(error)
        return messages

    def _advance(self, offset: int) -> None:
        self.offset, self.stranded = offset, 0.0
        self.outage.end()
        self.source.heard = time.monotonic()
        self.told.read.set(offset)

    def _end(self) -> int:
        """The log's end as the last fetch told it; negative where none did yet. Asked for, Tansu gives a lower one."""
        return int(self.consumer.get_watermark_offsets(TopicPartition(self.topic, self.partition), cached=True)[1])

    def _check(self) -> None:
        """Once a second of silence: are we waiting at an offset that is not there (Tansu would let us, forever), or
        with a client that is deaf?"""
        now = time.monotonic()
        if (passed := now - self.checked) < 1:
            return
        self.checked = now
        self.stranded = self.stranded + min(passed, 2) if 0 <= self._end() < self.offset else 0.0
        if self.stranded > self.source.patience:
            raise self._lost(f"lies beyond its end, {self._end()}")
        if self._deaf(now):
            self._replace(now)

    def _deaf(self, now: float) -> bool:
        """Whether the client is not to be trusted any more: it lived through an outage, and it is over. Mostly the
        client says so itself; where it does not, long after a new one has found the broker, it never will."""
        if not self.outage.on:
            return self.outage.count > self.trusted
        if self.source.broker_probe.answered < self.outage.since:
            self.source.broker_probe.ask()
            return False
        return now - self.source.broker_probe.answered > client.DEAF

    def _replace(self, now: float) -> None:
        """Read on with a new client. What the old one had fetched is fetched again."""
        if self.outage.on:
            log.warning("%s: the client does not find Kafka again, which is back; a new one does.", self.outage.what)
        threading.Thread(target=self.consumer.close, daemon=True).start()
        self.consumer, self.outage.since = self._client(), now
        self.consumer.assign([TopicPartition(self.topic, self.partition, self.offset)])

    def _failed(self, error: KafkaError) -> None:
        """Wait (the client tries again by itself, with back-off) or raise."""
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise self._lost("is not in it")
        client.check_passing(error, self.source.config, self.topic)
        self.outage.begin(error)

    def _lost(self, how: str) -> PositionLostError:
        return PositionLostError(
            f"Offset {self.offset} of {self.topic}[{self.partition}] {how}: the log was cut by retention or made anew; "
            "let the flow start anew (remove its recovery folder), or give it a position that exists."
        )


def read_all(config: Mapping[str, str], topic: str, start: Mapping[int, int] | None = None) -> Iterator[Message]:
    """A topic from its beginning, or an offset a partition, to its present end; in order within a partition. Raises
    StreamError."""
    settings = client.consuming(config, "premiere-read-all")
    consumer = Consumer(settings)
    try:
        left, given = set(client.partitions(settings, topic)), start or {}
        begins = {n: given[n] if n in given else client.beginning(consumer, topic, n) for n in left}
        consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in begins.items()])
        quiet = 0.0  # seconds
        while left:
            records = consumer.consume(1000, 0.1)
            quiet = 0.0 if records else quiet + 0.1
            if quiet > client.TIMEOUT:
                raise client.silent(settings, "no data")
            for record in records:
                if (error := record.error()) is None:
                    yield _message(record)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(record.partition())
                else:
                    client.check_passing(error, settings, topic)
    finally:
        consumer.close()


def _message(record: Any) -> Message:
    offset, appended = record.offset(), record.timestamp()[1]
    headers = record.headers() or ()
    return Message(record.topic(), record.partition(), offset, appended, record.key(), record.value(), headers)


def _offset(state: _Position | None, start: int | None) -> int | None:
    """Where to begin: what was snapshotted wins; None: at the log's beginning."""
    if state is None:
        return start
    form, offset = state
    if form != _FORMAT:
        raise StreamError(f"A position of format {form} was written by a newer version: run that one.")
    return offset
