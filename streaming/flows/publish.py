"""Flow `publish`: turns user activity, launches and model versions into the ranked lists in Redis.

activity + titles + model-versions -> one publisher -> Redis. The flow has no recovery store: its state is a cache that
`restore` rebuilds from the topics, and every write is idempotent by its revision. The publisher works in small batches.
The sources are polled between two batches, so a new event waits for one batch at most. A background thread loads model
versions, the newest first, and skips a version that cannot be loaded.

Within a process one step processes all records of a topic in order. Several processes do not communicate: each reads
everything, and writes the lists of its own shard of the users.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import Sink
from prometheus_client import Counter, Gauge

from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.source import Message
from streaming.records import (
    DECODE_ERRORS,
    Activity,
    Title,
    UserErasure,
    decode_log,
    decode_title,
    decode_version,
)
from streaming.state.log_clock import recorded_until
from streaming.state.publisher import Publisher
from streaming.state.version_loader import LOADING_CHECK_INTERVAL_S, Announced, LoadVersion, VersionLoader
from streaming.stores.redis_lists import RedisWrite

T = TypeVar("T")

KINDS: Final = ("activity", "titles", "versions")  # of the topics that the flow reads
SINGLE_WRITER: Final = "0"  # key of the only step and the only writer
MAX_DRAIN_S: Final = 5.0  # how long queued work continues after the input has ended

VERSION_SERVED: Final = Gauge("premiere_version_served", "Number of the served model version; -1 before the first.")
USERS_CACHED: Final = Gauge("premiere_users_cached", "Users in the cache of publish.")
USERS_WAITING: Final = Gauge("premiere_users_waiting", "Users whose lists will be recomputed, by cause.", ["cause"])
UNREADABLE: Final = Counter(
    "premiere_publish_unreadable_total", "Records of internal topics that are invalid and were skipped."
)
VERSION_SERVED.set(-1)


class TopicPoll(NamedTuple):
    """New messages of one topic. `kind` is "activity", "titles" or "versions"."""

    kind: str
    messages: list[Message]


def build(
    *,
    activity: Source[list[Message]],
    titles: Source[list[Message]],
    versions: Source[list[Message]],
    lists: Sink[tuple[str, list[RedisWrite]]],
    publisher: Publisher,
    load: LoadVersion,
    clock: Callable[[], float],
    announced: Sequence[Announced] = (),
    commit_positions: Mapping[str, CommitPosition] | None = None,
) -> Dataflow:
    """The flow.

    - announced: the versions that `restore` returned
    - commit_positions: by kind; they advance once the effects of the earlier records are on their way to Redis
    """
    positions = {kind: CommitPosition() for kind in KINDS} if commit_positions is None else commit_positions
    step = _Step(publisher, load, clock, announced, positions)
    flow = Dataflow("publish")
    activity_polls = _polls(flow, "activity", activity)  # ("0", TopicPoll)
    titles_polls = _polls(flow, "titles", titles)
    versions_polls = _polls(flow, "versions", versions)
    polls = op.merge("polls", activity_polls, titles_polls, versions_polls)
    writes = op.stateful_batch("writes", polls, lambda _: step)  # ("0", [RedisWrite])
    op.output("lists", writes, lists)
    return flow


def _polls(flow: Dataflow, kind: str, source: Source[list[Message]]) -> "op.KeyedStream[TopicPoll]":
    return op.map(f"{kind}_polls", op.input(kind, flow, source), lambda poll: (SINGLE_WRITER, TopicPoll(kind, poll)))


def restore(
    publisher: Publisher,
    titles: Iterable[Message],
    activity: Iterable[Message],
    versions: Iterable[Message],
) -> list[Announced]:
    """Fill the caches from the topics without computing lists, and return the versions announced so far."""
    publisher.titles.update(_titles(titles), at_startup=True)
    for message, record in decode_messages(activity, decode_log):
        if isinstance(record, Activity):
            publisher.update_cache(recorded_until(record, message.appended), message.offset)
        elif isinstance(record, UserErasure):
            publisher.on_erasure(record, message.offset)
        elif isinstance(record, Title):
            publisher.titles.set_log_offset(record, message.offset)
    return [Announced(message.offset, version) for message, version in decode_messages(versions, decode_version)]


def _titles(messages: Iterable[Message]) -> Iterator[Title]:
    """The titles in messages of the topic `titles`."""
    return (record for _, record in decode_messages(messages, decode_title) if isinstance(record, Title))


def decode_messages(messages: Iterable[Message], decode: Callable[[bytes], T]) -> Iterator[tuple[Message, T]]:
    """The valid records. The others are counted and skipped.

    Only Premiere's own flows write these topics, and one bad record must not stop this flow.
    """
    for message in messages:
        try:
            record = decode(message.value or b"")
        except DECODE_ERRORS:
            UNREADABLE.inc()
        else:
            yield message, record


class _Step(StatefulBatchLogic[TopicPoll, list[RedisWrite], None]):
    """Runs the publisher in the engine: one batch of work per call, and a call whenever work is due."""

    def __init__(
        self,
        publisher: Publisher,
        load: LoadVersion,
        clock: Callable[[], float],
        announced: Sequence[Announced],
        commit_positions: Mapping[str, CommitPosition],
    ) -> None:
        self.publisher, self.clock, self.commit_positions = publisher, clock, commit_positions
        self.versions = VersionLoader(publisher, load, announced)
        self.read_offsets: dict[str, dict[int, int]] = {}  # next offset by kind and partition
        self.done_offsets: dict[str, dict[int, int]] = {}  # the same, but before the records whose work is queued

    def on_batch(self, values: list[TopicPoll]) -> tuple[list[list[RedisWrite]], bool]:
        """Apply new messages, then do a batch of work."""
        for poll in values:
            self._apply(poll)
        return self.on_notify()

    def on_notify(self) -> tuple[list[list[RedisWrite]], bool]:
        """Do a batch of work."""
        for kind, offsets in self.done_offsets.items():  # the engine has written the previous batch by now
            for partition, offset in offsets.items():
                self.commit_positions[kind].advance(partition, offset)
        self.versions.step()
        writes = self.publisher.work(round(self.clock() * 1000))
        self.done_offsets = {kind: dict(offsets) for kind, offsets in self.read_offsets.items()}
        if (pending := self.publisher.pending_offset()) is not None:
            self.done_offsets["activity"] = {0: pending}
        _report(self.publisher)
        return [writes] if writes else [], StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[list[list[RedisWrite]], bool]:
        """Finish the queued work, for at most `MAX_DRAIN_S`."""
        end, batches = self.clock() + MAX_DRAIN_S, []
        while self.clock() < end and self._seconds_until_work() is not None:
            self.versions.wait()
            writes, _ = self.on_notify()
            batches += writes
            if not (writes or self.versions.loading):
                break
        return batches, StatefulBatchLogic.RETAIN

    def notify_at(self) -> datetime | None:
        """When to call `on_notify`; None: only after new messages."""
        seconds = self._seconds_until_work()
        return None if seconds is None else datetime.fromtimestamp(self.clock() + seconds, UTC)

    def snapshot(self) -> None:
        """Nothing: `restore` rebuilds the state."""

    def _seconds_until_work(self) -> float | None:
        due = self.publisher.seconds_until_work(round(self.clock() * 1000))
        return min(LOADING_CHECK_INTERVAL_S, due or LOADING_CHECK_INTERVAL_S) if self.versions.loading else due

    def _apply(self, poll: TopicPoll) -> None:
        if poll.messages:
            last = poll.messages[-1]
            self.read_offsets.setdefault(poll.kind, {})[last.partition] = last.offset + 1
        if poll.kind == "titles":
            self.publisher.on_launches(list(_titles(poll.messages)))
        elif poll.kind == "versions":
            self.versions.add([Announced(m.offset, v) for m, v in decode_messages(poll.messages, decode_version)])
        else:
            for message, record in decode_messages(poll.messages, decode_log):
                if isinstance(record, Activity):
                    self.publisher.on_activity(recorded_until(record, message.appended), message.offset)
                elif isinstance(record, UserErasure):
                    self.publisher.on_erasure(record, message.offset)
                elif isinstance(record, Title):
                    self.publisher.titles.set_log_offset(record, message.offset)


def _report(publisher: Publisher) -> None:
    VERSION_SERVED.set(publisher.version)
    USERS_CACHED.set(len(publisher.users))
    USERS_WAITING.labels("event").set(len(publisher.event_queue))
    USERS_WAITING.labels("launch").set(len(publisher.launch_queue))
    USERS_WAITING.labels("refresh").set(len(publisher.refresh_queue))
