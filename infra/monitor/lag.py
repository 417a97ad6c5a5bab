"""How far each flow is behind: messages, and seconds, between its group's committed offset and each partition's end.

The committed offset is what a crash would go back to, so this is the lag that counts, and the one that Kafka's own
tools show. In seconds it is the time between the first record that waits and the last one, by Kafka's record times: no
clock of ours is in it, and it is 0 where nothing waits. Both records are fetched.

The end needs care: Tansu answers a question for it with the base offset of the last batch + 1 (measured: 17 records
reported as 11), while its fetch responses carry the right one. So a consumer fetches from the reported end, and the end
that it learns in passing is used. What has not moved since the last reading is not asked for again.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.errors import TopicError
from streaming import topics as t
from streaming.kafka.client import StreamError, consuming, known_topics

TIMEOUT: Final = 10.0  # seconds for an answer of the broker
READS: Final[Mapping[str, Sequence[str]]] = {  # what each flow, and its consumer group of the same name, reads
    "features": (t.USER_EVENTS,),
    "titles": (t.TITLE_LAUNCHES,),
    "learn": (t.ACTIVITY,),
    "publish": (t.ACTIVITY, t.TITLES, t.MODEL_VERSIONS),
}
_SPARING: Final = {  # a consumer fetches ahead, and we look at single records
    "fetch.message.max.bytes": "65536",
    "queued.max.messages.kbytes": "1024",
    "queued.min.messages": "1",
    "fetch.queue.backoff.ms": "10",  # not a second, which it waits where it has fetched enough
}
_GRACE: Final = 3.0  # seconds for a record that an end was told before
_ELECTING: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
)
T = TypeVar("T")
_At = tuple[str, int]  # topic, partition


class Lag(NamedTuple):
    """One group on one partition. `committed` is None before its first commit; then all that is there waits.

    `seconds` is None where the broker did not give the records in time.
    """

    group: str
    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int
    seconds: float | None = 0.0


class Lags:
    """Reads lags again and again over the same connections. Close it, or use it in a `with`.

    Committed offsets are asked for by a consumer per group that never joins it: the admin client's request for them
    never ends on an Apache Kafka that is new, and the client cannot be closed after that (measured, librdkafka 2.16).
    """

    def __init__(self, config: Mapping[str, str]) -> None:
        self._given, self._config = config, {**config, **_SPARING}
        self._connect()
        self._ends: dict[_At, tuple[int, int]] = {}  # reported end, true end
        self._times: dict[str, dict[_At, tuple[int, int]]] = {}  # by reader: the offset looked at, its record time (ms)

    def _connect(self) -> None:
        self._consumer = Consumer(consuming(self._config, "premiere-lag"))
        self._groups: dict[str, Consumer] = {}

    def read(self, groups: Mapping[str, Sequence[str]] = READS) -> list[Lag]:
        """A row per group, topic and partition. Topics that do not exist are left out. Raises TopicError."""
        try:
            known = self._partitions({topic for topics in groups.values() for topic in topics})
            reads = {group: [at for at in known if at[0] in topics] for group, topics in groups.items()}
            # Before the ends: a commit in between would look like a negative lag.
            committed = {group: self._committed(group, partitions) for group, partitions in reads.items()}
            bounds = self._bounds(known)
            rows = [
                Lag(group, *at, committed[group].get(at), *_waiting(committed[group].get(at), *bounds[at]))
                for group, partitions in reads.items()
                for at in partitions
            ]
            return self._timed(rows)
        except KafkaException as error:
            self.close()
            self._connect()  # a client that lived through an outage may be deaf: see broker.Witness
            raise TopicError(self._why(error)) from error

    def _why(self, error: KafkaException) -> str:
        """A broker that is silent and one that refuses us fail alike; a question to it tells."""
        try:
            known_topics(self._given, timeout=2)
        except StreamError as told:
            return str(told)
        return f"Kafka does not tell its offsets: {error.args[0].str()}."

    def _timed(self, rows: Sequence[Lag]) -> list[Lag]:
        """The rows with their seconds."""
        behind = [row for row in rows if row.lag]
        last = self._record_times("", self._consumer, {row[1:3]: row.end - 1 for row in behind})
        first = {
            group: self._record_times(
                group, self._groups[group], {row[1:3]: row.end - row.lag for row in behind if row.group == group}
            )
            for group in {row.group for row in behind}
        }
        return [row._replace(seconds=_seconds(first[row.group], last, row[1:3])) if row.lag else row for row in rows]

    def _record_times(self, reader: str, consumer: Consumer, wanted: Mapping[_At, int]) -> dict[_At, int]:
        """The record times (ms) of the first records from these offsets on; without those that do not come in time."""
        known = self._times.get(reader, {})
        found = {at: known[at] for at, offset in wanted.items() if known.get(at, (-1, 0))[0] == offset}
        missing = {at: offset for at, offset in wanted.items() if at not in found}
        records = _fetch(consumer, missing)
        found |= {at: (missing[at], records[at].timestamp()[1]) for at in missing if at in records}
        self._times[reader] = found
        return {at: time for at, (_, time) in found.items()}

    def _bounds(self, partitions: Iterable[_At]) -> dict[_At, tuple[int, int]]:
        """The first offset and the true end (the offset that the next record gets) of each partition."""
        reported = {at: self._consumer.get_watermark_offsets(TopicPartition(*at), TIMEOUT) for at in partitions}
        moved = {at: end for at, (_, end) in reported.items() if self._ends.get(at, (-1, -1))[0] != end}
        for at, end in self._look(moved).items():
            self._ends[at] = (moved[at], end)
        return {at: (start, self._ends.get(at, (end, end))[1]) for at, (start, end) in reported.items()}

    def _look(self, reported: Mapping[_At, int]) -> dict[_At, int]:
        """The true ends behind the reported ones: a fetch from just before brings them, records or none."""
        if not reported:
            return {}
        ends: dict[_At, int] = {}

        def seen(at: _At) -> None:
            ends[at] = self._consumer.get_watermark_offsets(TopicPartition(*at), cached=True)[1]

        _fetch(self._consumer, {at: max(0, end - 1) for at, end in reported.items()}, seen)
        return {at: max(end, reported[at]) for at, end in ends.items()}

    def _committed(self, group: str, partitions: Iterable[_At]) -> dict[_At, int]:
        if group not in self._groups:
            self._groups[group] = Consumer(consuming(self._config, group))
        asked = [TopicPartition(*at) for at in partitions]
        found = patient(lambda: self._groups[group].committed(asked, TIMEOUT)) if asked else []
        return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def _partitions(self, topics: set[str]) -> list[_At]:
        found = self._consumer.list_topics(timeout=TIMEOUT).topics
        return [(topic, partition) for topic in sorted(topics & found.keys()) for partition in found[topic].partitions]

    def close(self) -> None:
        """Let the connections go."""
        for consumer in (self._consumer, *self._groups.values()):
            consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _waiting(committed: int | None, start: int, end: int) -> tuple[int, int]:
    """The end, and how many messages wait before it."""
    return end, max(0, end - max(start, committed or 0))


def _seconds(first: Mapping[_At, int], last: Mapping[_At, int], at: _At) -> float | None:
    """Never negative: record times that producers set may go back."""
    return max(0, last[at] - first[at]) / 1000 if at in first and at in last else None


def _fetch(
    consumer: Consumer, offsets: Mapping[_At, int], seen: Callable[[_At], None] = lambda at: None
) -> dict[_At, Message]:
    """The first record of each partition from an offset on, where there is one; `seen` is told who answered."""
    if not offsets:
        return {}
    records: dict[_At, Message] = {}
    deadline = time.monotonic() + TIMEOUT
    consumer.assign([TopicPartition(*at, offset) for at, offset in offsets.items()])
    deadlines = dict.fromkeys(offsets, deadline)  # of those that have not answered
    while deadlines and time.monotonic() < max(deadlines.values()):
        for message in consumer.consume(1000, 0.05):
            at, offset = (str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
            if (error := message.error()) is None and offset >= offsets[at]:
                records.setdefault(at, message)
                deadlines.pop(at, None)
            elif error is not None and error.code() == KafkaError._PARTITION_EOF and at in deadlines:
                # An end further on may be one that an earlier look had asked for, and the record is on its way.
                deadlines[at] = min(deadlines[at], time.monotonic() + (_GRACE if offset > offsets[at] else 0))
            # Other errors pass: a topic that is new has no leader for a moment.
    for at in offsets.keys() - deadlines.keys() | {at for at, end in deadlines.items() if end < deadline}:
        seen(at)
    consumer.unassign()
    return records


def patient(ask: Callable[[], T]) -> T:
    """Ask again, within bounds, while a broker that is new or has just changed finds out who keeps a group, or leads a
    partition. Raises KafkaException."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _ELECTING or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def lag(config: Mapping[str, str], groups: Mapping[str, Sequence[str]] = READS) -> list[Lag]:
    """The lags once. Raises TopicError where Kafka does not answer."""
    with Lags(config) as lags:
        return lags.read(groups)
