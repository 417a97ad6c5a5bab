"""Consumer lag of each flow, in records and in seconds, per topic and partition.

The lag counts from the group's committed offset to the end of the log. A flow restarts at its committed offset after a
crash, and Kafka's own tools measure lag the same way. The lag in seconds is the difference of two Kafka record
timestamps: the last record minus the first uncommitted one. It does not depend on a local clock, and it is 0 if every
record is committed. Both records are fetched.

Tansu reports a wrong end offset: the base offset of the last batch + 1 (measured: 11 for 17 records). Its fetch
responses carry the right one. A consumer therefore fetches from the reported end and uses the end offset of the
response. Offsets that have not moved since the last read are not requested again.

The markers of Kafka's transactions occupy offsets but are not records. They count as lag between records. If only
markers follow a committed offset, the lag is 0.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.errors import TopicError
from infra.topics import topic_error
from streaming import topics as t
from streaming.errors import StreamError
from streaming.kafka.client import consumer_config, topic_metadata, topic_name
from streaming.kafka.reconnect import ReconnectingClient

BROKER_TIMEOUT_S: Final = 10.0  # per request to the broker
FLOW_TOPICS: Final[Mapping[str, Sequence[str]]] = {  # flow, and consumer group of the same name -> topics that it reads
    "features": (t.USER_EVENTS, t.ERASURE_REQUESTS),
    "titles": (t.TITLE_LAUNCHES, t.TITLE_WITHDRAWALS),
    "learn": (t.ACTIVITY,),
    "publish": (t.ACTIVITY, t.TITLES, t.MODEL_VERSIONS),
}
_SMALL_FETCHES: Final = {  # a consumer prefetches, but only single records are needed
    "fetch.message.max.bytes": "65536",
    "queued.max.messages.kbytes": "1024",
    "queued.min.messages": "1",
    "fetch.queue.backoff.ms": "10",  # the default waits one second once the queue is full
}
_TAIL_OFFSETS: Final = 16  # at the end of a partition, of which one is a record: each producer ends with one marker
_LATE_RECORD_TIMEOUT_S: Final = 0.5  # for a record after a partition end beyond its offset: there may be only markers
_TRANSIENT_ERRORS: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
)
T = TypeVar("T")
_Partition = tuple[str, int]  # topic, partition


class PartitionLag(NamedTuple):
    """The lag of one consumer group on one partition. The names of group and topic are those without the prefix."""

    group: str
    topic: str
    partition: int
    committed_offset: int | None  # None before the group's first commit: then all records count
    end_offset: int
    records: int
    seconds: float | None = 0.0  # None if the broker did not return the records in time


class _Clients(NamedTuple):
    consumer: Consumer  # reads the ends of the partitions and the times of records
    groups: dict[str, Consumer]  # requests the committed offsets of each group


class LagReader:
    """Reads lags repeatedly over the same connections. Close it, or use it as a context manager.

    One consumer per group requests the committed offsets; it never joins the group. The admin client's request for
    them never returns on a new Apache Kafka, and the client cannot be closed afterwards (measured, librdkafka 2.16).
    """

    def __init__(self, config: Mapping[str, str]) -> None:
        self._client_config, self._config = config, {**config, **_SMALL_FETCHES}
        self._clients = ReconnectingClient(lambda _: self._connect())
        self._ends: dict[_Partition, tuple[int, int]] = {}  # reported end offset, true end offset
        # By consumer: offsets, and the time (ms) of a record in them
        self._times: dict[str, dict[_Partition, tuple[range, int]]] = {}

    def _connect(self) -> "_Clients":
        return _Clients(Consumer(consumer_config(self._config, "premiere-lag")), {})

    @property
    def _consumer(self) -> Consumer:
        return self._clients.current.consumer

    @property
    def _groups(self) -> dict[str, Consumer]:
        return self._clients.current.groups

    def read(self, groups: Mapping[str, Sequence[str]] = FLOW_TOPICS) -> list[PartitionLag]:
        """Return one row per group, topic and partition, without topics that do not exist. Raises TopicError."""
        topics_by_name = {topic_name(self._config, topic): topic for topics in groups.values() for topic in topics}
        try:
            known = self._partitions(set(topics_by_name))
            reads = {group: [at for at in known if topics_by_name[at[0]] in topics] for group, topics in groups.items()}
            # Read before the ends: a commit in between would give a negative lag.
            committed = {group: self._committed(group, partitions) for group, partitions in reads.items()}
            bounds = self._bounds(known)
            rows = [
                PartitionLag(group, *at, committed[group].get(at), *_end_and_lag(committed[group].get(at), *bounds[at]))
                for group, partitions in reads.items()
                for at in partitions
            ]
            return [row._replace(topic=topics_by_name[row.topic]) for row in self._with_seconds(rows)]
        except KafkaException as error:
            self._clients.replace()
            raise self._reason(error) from error

    def _reason(self, error: KafkaException) -> TopicError:
        """An unreachable broker and a refused login give the same `error` here; a metadata request tells them apart."""
        try:
            topic_metadata(self._client_config, timeout_s=2)
        except StreamError as reason:
            return topic_error(reason)
        return TopicError(f"Kafka did not return its offsets: {error.args[0].str()}.")

    def _with_seconds(self, rows: Sequence[PartitionLag]) -> list[PartitionLag]:
        """The rows with their lag in seconds."""
        behind = [row for row in rows if row.records]
        ends = {row[1:3]: row.end_offset for row in behind}
        last = self._record_times(
            "", self._consumer, {at: range(max(0, end - _TAIL_OFFSETS), end) for at, end in ends.items()}
        )
        first = {
            group: self._record_times(
                group,
                self._groups[group],
                {row[1:3]: _first_of(row.end_offset - row.records) for row in behind if row.group == group},
            )
            for group in {row.group for row in behind}
        }
        return [_add_seconds(row, first[row.group], last) if row.records else row for row in rows]

    def _record_times(
        self, name: str, consumer: Consumer, offsets: Mapping[_Partition, range]
    ) -> dict[_Partition, int | None]:
        """The time (ms) of a record in each range, as `_fetch` finds it; None if there is none."""
        cached = self._times.get(name, {})
        found = {at: cached[at] for at, span in offsets.items() if at in cached and cached[at][0] == span}
        records = _fetch(consumer, {at: span for at, span in offsets.items() if at not in found})
        found |= {at: (offsets[at], record.timestamp()[1]) for at, record in records.items() if record is not None}
        self._times[name] = found
        return {**dict.fromkeys(records), **{at: time for at, (_, time) in found.items()}}

    def _bounds(self, partitions: Iterable[_Partition]) -> dict[_Partition, tuple[int, int]]:
        """The first offset and the true end offset (the offset of the next record) of each partition."""
        reported = {
            at: self._consumer.get_watermark_offsets(TopicPartition(*at), BROKER_TIMEOUT_S) for at in partitions
        }
        moved = {at: end for at, (_, end) in reported.items() if self._ends.get(at, (-1, -1))[0] != end}
        for at, end in self._true_ends(moved).items():
            self._ends[at] = (moved[at], end)
        return {at: (start, self._ends.get(at, (end, end))[1]) for at, (start, end) in reported.items()}

    def _true_ends(self, reported: Mapping[_Partition, int]) -> dict[_Partition, int]:
        """The true end offsets: the response to a fetch from the reported end carries them."""
        ends: dict[_Partition, int] = {}

        def on_response(at: _Partition) -> None:
            ends[at] = self._consumer.get_watermark_offsets(TopicPartition(*at), cached=True)[1]

        _fetch(self._consumer, {at: _first_of(end) for at, end in reported.items()}, on_response)
        return {at: max(end, reported[at]) for at, end in ends.items()}

    def _committed(self, group: str, partitions: Iterable[_Partition]) -> dict[_Partition, int]:
        if group not in self._groups:
            self._groups[group] = Consumer(consumer_config(self._config, group))
        wanted = [TopicPartition(*at) for at in partitions]
        if not wanted:
            return {}
        found = retry_during_election(lambda: self._groups[group].committed(wanted, BROKER_TIMEOUT_S))
        return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def _partitions(self, topics: set[str]) -> list[_Partition]:
        found = self._consumer.list_topics(timeout=BROKER_TIMEOUT_S).topics
        return [(topic, partition) for topic in sorted(topics & found.keys()) for partition in found[topic].partitions]

    def close(self) -> None:
        """Close the connections."""
        for consumer in (self._consumer, *self._groups.values()):
            consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end_and_lag(committed: int | None, start: int, end: int) -> tuple[int, int]:
    """The end offset and the number of records that are not committed."""
    return end, max(0, end - max(start, committed or 0))


def _add_seconds(
    row: PartitionLag, first: Mapping[_Partition, int | None], last: Mapping[_Partition, int | None]
) -> PartitionLag:
    """The row with its lag in seconds. Never negative: producers may set record times that decrease."""
    at = row[1:3]
    began, ended = first.get(at), last.get(at)
    if at in first and began is None:
        return row._replace(records=0)  # only markers of transactions follow the committed offset
    return row._replace(seconds=None if began is None or ended is None else max(0, ended - began) / 1000)


def _first_of(offset: int) -> range:
    """For the first record from an offset on."""
    return range(offset, offset + 1)


def _fetch(
    consumer: Consumer, offsets: Mapping[_Partition, range], on_response: Callable[[_Partition], None] = lambda at: None
) -> dict[_Partition, Message | None]:
    """The last record of each range, else the first one behind it; None if there is none.

    Partitions without an answer are missing. `on_response` gets the others.
    """
    if not offsets:
        return {}
    records: dict[_Partition, Message] = {}
    deadline = time.monotonic() + BROKER_TIMEOUT_S
    consumer.assign([TopicPartition(*at, span.start) for at, span in offsets.items()])
    deadlines = dict.fromkeys(offsets, deadline)  # of the partitions that have not answered
    while deadlines and time.monotonic() < max(deadlines.values()):
        for message in consumer.consume(1000, 0.05):
            at, offset = (str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
            if at not in deadlines:
                continue
            if (error := message.error()) is None and offset >= offsets[at].start:
                records[at] = message
                if offset >= offsets[at][-1]:
                    deadlines.pop(at)
            elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                # An end beyond the offset may belong to an earlier fetch; then the record is still on its way.
                is_early = offset > offsets[at].start and at not in records
                deadlines[at] = min(deadlines[at], time.monotonic() + (_LATE_RECORD_TIMEOUT_S if is_early else 0))
            # Other errors are transient: a new topic has no leader for a moment.
    answered = offsets.keys() - deadlines.keys() | {at for at, end in deadlines.items() if end < deadline}
    for at in answered:
        on_response(at)
    consumer.unassign()
    return {at: records.get(at) for at in answered}


def retry_during_election(request: Callable[[], T]) -> T:
    """Repeat a request while the broker elects a group coordinator or a partition leader, at most `BROKER_TIMEOUT_S`.

    Raises KafkaException for any other error, or if the time is over.
    """
    deadline = time.monotonic() + BROKER_TIMEOUT_S
    while True:
        try:
            return request()
        except KafkaException as error:
            if error.args[0].code() not in _TRANSIENT_ERRORS or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def read_lag(config: Mapping[str, str], groups: Mapping[str, Sequence[str]] = FLOW_TOPICS) -> list[PartitionLag]:
    """Read the lags once. Raises TopicError if Kafka does not answer."""
    with LagReader(config) as reader:
        return reader.read(groups)
