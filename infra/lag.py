"""How far each flow is behind: messages between its group's committed offset and the end of each partition.

The committed offset is what a crash would go back to, so this is the lag that counts, and the one that Kafka's own
tools show. The end needs care: Tansu answers a question for it with the base offset of the last batch + 1 (measured: 17
records reported as 11), while its fetch responses carry the right one. So a consumer fetches from the reported end, and
the end that it learns in passing is used; a partition whose reported end has not moved is not asked again.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from infra.errors import TopicError
from streaming import topics as t
from streaming.broker import consuming

TIMEOUT: Final = 10.0  # seconds for an answer of the broker
READS: Final[Mapping[str, Sequence[str]]] = {  # what each flow, and its consumer group of the same name, reads
    "features": (t.USER_EVENTS,),
    "titles": (t.TITLE_LAUNCHES,),
    "learn": (t.ACTIVITY,),
    "publish": (t.ACTIVITY, t.TITLES, t.MODEL_VERSIONS),
}
_COORDINATOR: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
_At = tuple[str, int]  # topic, partition


class Lag(NamedTuple):
    """One group on one partition. `committed` is None before its first commit; then all that is there waits."""

    group: str
    topic: str
    partition: int
    committed: int | None
    end: int
    lag: int


class Lags:
    """Reads lags again and again over the same connections. Close it, or use it in a `with`.

    Committed offsets are asked for by a consumer per group that never joins it: the admin client's request for them
    never ends on an Apache Kafka that is new, and the client cannot be closed after that (measured, librdkafka 2.16).
    """

    def __init__(self, config: Mapping[str, str]) -> None:
        self._config = dict(config)
        self._consumer = Consumer(consuming(config, "premiere-lag"))
        self._groups: dict[str, Consumer] = {}
        self._ends: dict[_At, tuple[int, int]] = {}  # reported end, true end

    def read(self, groups: Mapping[str, Sequence[str]] = READS) -> list[Lag]:
        """A row per group, topic and partition. Topics that do not exist are left out. Raises TopicError."""
        try:
            known = self._partitions({topic for topics in groups.values() for topic in topics})
            reads = {group: [at for at in known if at[0] in topics] for group, topics in groups.items()}
            # Before the ends: a commit in between would look like a negative lag.
            committed = {group: self._committed(group, partitions) for group, partitions in reads.items()}
            bounds = self._bounds(known)
        except KafkaException as error:
            raise TopicError(f"Kafka does not tell its offsets: {error.args[0].str()}.") from error
        rows = []
        for group, partitions in reads.items():
            for at in partitions:
                done, (start, end) = committed[group].get(at), bounds[at]
                rows.append(Lag(group, *at, done, end, max(0, end - max(start, done or 0))))
        return rows

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
        self._consumer.assign([TopicPartition(*at, max(0, end - 1)) for at, end in reported.items()])
        waiting, deadline = set(reported), time.monotonic() + TIMEOUT
        while waiting and time.monotonic() < deadline:
            for message in self._consumer.consume(1000, 0.05):
                waiting.discard((message.topic(), message.partition()))
        answered = reported.keys() - waiting
        seen = {at: self._consumer.get_watermark_offsets(TopicPartition(*at), cached=True)[1] for at in answered}
        self._consumer.unassign()
        return {at: max(end, reported[at]) for at, end in seen.items()}

    def _committed(self, group: str, partitions: Iterable[_At]) -> dict[_At, int]:
        if group not in self._groups:
            self._groups[group] = Consumer(consuming(self._config, group))
        asked = [TopicPartition(*at) for at in partitions]
        found = _patient(lambda: self._groups[group].committed(asked, TIMEOUT)) if asked else []
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


def _patient(ask: Callable[[], list[TopicPartition]]) -> list[TopicPartition]:
    """Ask again, within bounds, while a broker that is new or has just changed is finding out who keeps the group."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _COORDINATOR or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def lag(config: Mapping[str, str], groups: Mapping[str, Sequence[str]] = READS) -> list[Lag]:
    """The lags once. Raises TopicError where Kafka does not answer."""
    with Lags(config) as lags:
        return lags.read(groups)
