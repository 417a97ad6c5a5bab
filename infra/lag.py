"""How far each flow is behind: messages between its group's committed offset and the end of each partition.

The committed offset is what a crash would go back to, so this is the lag that counts, and the one that Kafka's own
tools show. The end needs care: Tansu answers a question for it with the base offset of the last batch + 1 (measured: 17
records reported as 11), while its fetch responses carry the right one. So a consumer fetches from the reported end, and
the end that it learns in passing is used; a partition whose reported end has not moved is not asked again.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from infra.errors import TopicError
from streaming import topics as t

TIMEOUT: Final = 10.0  # seconds for an answer of the broker
READS: Final[Mapping[str, Sequence[str]]] = {  # what each flow, and its consumer group of the same name, reads
    "features": (t.USER_EVENTS,),
    "titles": (t.TITLE_LAUNCHES,),
    "learn": (t.ACTIVITY,),
    "publish": (t.ACTIVITY, t.TITLES, t.MODEL_VERSIONS),
}
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
    """Reads lags again and again over the same connections. Close it, or use it in a `with`."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self._admin = AdminClient({**config})
        own = {"group.id": "premiere-lag", "enable.auto.commit": False, "enable.partition.eof": True}
        own |= {"fetch.wait.max.ms": 10, "fetch.message.max.bytes": 1_000_000, "queued.max.messages.kbytes": 8192}
        self._consumer = Consumer({**config, **own})
        self._ends: dict[_At, tuple[int, int]] = {}  # reported end, true end

    def read(self, groups: Mapping[str, Sequence[str]] = READS) -> list[Lag]:
        """A row per group, topic and partition. Topics that do not exist are left out. Raises TopicError."""
        try:
            committed = self._committed(groups)  # before the ends: a commit in between would look negative
            known = self._partitions({topic for topics in groups.values() for topic in topics})
            ends = self.ends(known)
            starts = self._offsets(known, OffsetSpec.earliest())
        except KafkaException as error:
            raise TopicError(f"Kafka does not tell its offsets: {error.args[0].str()}.") from error
        rows = []
        for group, topics in groups.items():
            for topic, partition in sorted(at for at in known if at[0] in topics):
                done = committed[group].get((topic, partition))
                end = ends[topic, partition]
                waiting = end - max(starts[topic, partition], done or 0)
                rows.append(Lag(group, topic, partition, done, end, max(0, waiting)))
        return rows

    def ends(self, partitions: Iterable[_At]) -> dict[_At, int]:
        """The true end (the offset that the next record gets) of each partition."""
        reported = self._offsets(partitions, OffsetSpec.latest())
        moved = [at for at, end in reported.items() if self._ends.get(at, (-1, -1))[0] != end]
        for at, end in self._look(moved, reported).items():
            self._ends[at] = (reported[at], end)
        return {at: self._ends[at][1] for at in reported}

    def _look(self, moved: Sequence[_At], reported: Mapping[_At, int]) -> dict[_At, int]:
        """Fetch from just before each reported end until every partition has said that it has no more."""
        if not moved:
            return {}
        self._consumer.assign([TopicPartition(*at, max(0, reported[at] - 1)) for at in moved])
        waiting, deadline = set(moved), time.monotonic() + TIMEOUT
        while waiting and time.monotonic() < deadline:
            for message in self._consumer.consume(1000, 0.05):
                waiting.discard((message.topic(), message.partition()))  # any fetch brings the end
        ends = {at: self._consumer.get_watermark_offsets(TopicPartition(*at), cached=True)[1] for at in moved}
        self._consumer.unassign()
        return {at: max(end, reported[at]) for at, end in ends.items()}

    def _committed(self, groups: Iterable[str]) -> dict[str, dict[_At, int]]:
        asked = {
            group: self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT
            )
            for group in groups
        }
        found = {group: answer[group].result(timeout=TIMEOUT).topic_partitions for group, answer in asked.items()}
        return {g: {(p.topic, p.partition): p.offset for p in ps if p.offset >= 0} for g, ps in found.items()}

    def _partitions(self, topics: set[str]) -> list[_At]:
        found = self._admin.list_topics(timeout=TIMEOUT).topics
        return [(topic, partition) for topic in sorted(topics & found.keys()) for partition in found[topic].partitions]

    def _offsets(self, partitions: Iterable[_At], spec: OffsetSpec) -> dict[_At, int]:
        asked = {TopicPartition(*at): spec for at in partitions}
        if not asked:
            return {}
        answers = self._admin.list_offsets(asked, request_timeout=TIMEOUT)
        return {(p.topic, p.partition): answer.result(timeout=TIMEOUT).offset for p, answer in answers.items()}

    def close(self) -> None:
        """Let the connections go."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lag(config: Mapping[str, str], groups: Mapping[str, Sequence[str]] = READS) -> list[Lag]:
    """The lags once. Raises TopicError where Kafka does not answer."""
    with Lags(config) as lags:
        return lags.read(groups)
