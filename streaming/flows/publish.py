"""Flow `publish`: what viewers do, what launches and what is learned become the lists that lie in Redis.

activity + titles + model-versions -> one publisher -> Redis. It keeps no recovery store: its state is a cache that
`restore` makes again from the topics, and everything it writes is idempotent by its revision. The publisher does a
slice of work at a time; between two slices the sources are asked, so that a fresh event waits for one slice at most. A
version is loaded beside that, in a thread, the newest first; one that cannot be loaded is passed over.

In a process all of a topic's records pass one step, in their order. Several processes do not talk to each other: each
reads everything, and writes for its own share of the viewers.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

import bytewax.operators as op
import msgspec
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import Sink
from prometheus_client import Counter, Gauge

from model.checkpoint import CheckpointError
from model.recommender import Recommender
from streaming.kafka.source import Message
from streaming.records import Activity, Forgotten, Title, Version, decode_log, decode_title, decode_version
from streaming.state.publisher import Publisher
from streaming.stores.redis_lists import Item

log = logging.getLogger(__name__)

T = TypeVar("T")

ONE: Final = "0"  # key of the only step and the only writer
LOADING: Final = 0.02  # seconds between two looks at a version that is being loaded
KEPT: Final = 16  # announced versions that are tried where newer ones cannot be loaded
DRAIN: Final = 5.0  # seconds of work that is still done once the input has ended

SERVED: Final = Gauge("premiere_version_served", "number of the version that lists are made by; -1 before the first")
CACHED: Final = Gauge("premiere_viewers_cached", "viewers in the cache of publish")
WAITING: Final = Gauge("premiere_viewers_waiting", "viewers whose lists are due", ["cause"])
UNREADABLE: Final = Counter("premiere_publish_unreadable", "records of internal topics that could not be read")
HELD: Final = Gauge("premiere_version_held", "number of the rollback that holds later versions back; -1: none")
PASSED: Final = Counter("premiere_versions_passed_over", "announced versions that could not be loaded")
SERVED.set(-1)
HELD.set(-1)

Load = Callable[[str, Sequence[Title]], Recommender]  # a checkpoint's URL, titles to add; raises CheckpointError


class Announced(NamedTuple):
    """A version and its number, its record's offset."""

    number: int
    version: Version


class Poll(NamedTuple):
    """What a topic brought: of `activity`, `titles` or `versions`."""

    kind: str
    messages: list[Message]


def build(
    *,
    activity: Source[list[Message]],
    titles: Source[list[Message]],
    versions: Source[list[Message]],
    predictions: Sink[tuple[str, list[Item]]],
    publisher: Publisher,
    load: Load,
    clock: Callable[[], float],
    announced: Sequence[Announced] = (),
    durable: dict[str, dict[int, int]] | None = None,
) -> Dataflow:
    """The flow. `announced` are versions known from `restore`; `durable` is told the next offset of each kind, by
    partition, once what came before is on its way to Redis."""
    step = _Step(publisher, load, clock, announced, {} if durable is None else durable)
    flow = Dataflow("publish")
    acted = _polls(flow, "activity", activity)  # ("0", Poll)
    launched = _polls(flow, "titles", titles)
    learned = _polls(flow, "versions", versions)
    polls = op.merge("polls", acted, launched, learned)
    items = op.stateful_batch("publisher", polls, lambda _: step)  # ("0", [Item])
    op.output("predictions", items, predictions)
    return flow


def _polls(flow: Dataflow, kind: str, source: Source[list[Message]]) -> "op.KeyedStream[Poll]":
    return op.map(f"{kind}_polls", op.input(kind, flow, source), lambda poll: (ONE, Poll(kind, poll)))


def restore(
    publisher: Publisher, titles: Iterable[Message], activity: Iterable[Message], versions: Iterable[Message]
) -> list[Announced]:
    """Fill the caches from the topics as they are, and compute nothing; the versions announced so far."""
    publisher.titles.take((title for _, title in read(titles, decode_title)), live=False)
    for message, record in read(activity, decode_log):
        if isinstance(record, Activity):
            publisher.remember(record)
        elif isinstance(record, Forgotten):
            publisher.forget(record)
        elif isinstance(record, Title):
            publisher.titles.log(record, message.offset)
    return [Announced(message.offset, version) for message, version in read(versions, decode_version)]


def read(messages: Iterable[Message], decode: Callable[[bytes], T]) -> Iterator[tuple[Message, T]]:
    """The records that can be read; only our own flows write here, and one bad record must not stop this one."""
    for message in messages:
        try:
            yield message, decode(message.value or b"")
        except msgspec.MsgspecError:
            UNREADABLE.inc()


class _Step(StatefulBatchLogic[Poll, list[Item], None]):
    """The publisher in the engine's hands: a slice of work each time it is called, and a call whenever work is due."""

    def __init__(
        self,
        publisher: Publisher,
        load: Load,
        clock: Callable[[], float],
        announced: Sequence[Announced],
        durable: dict[str, dict[int, int]],
    ) -> None:
        self.publisher, self.clock, self.durable = publisher, clock, durable
        self.versions = _Versions(publisher, load, announced)
        self.next: dict[str, dict[int, int]] = {}  # offsets by kind and partition
        self.done: dict[str, dict[int, int]] = {}  # the same, without what is still due

    def on_batch(self, values: list[Poll]) -> tuple[list[list[Item]], bool]:
        """Take in what came."""
        for poll in values:
            self._take(poll)
        return self.on_notify()

    def on_notify(self) -> tuple[list[list[Item]], bool]:
        """Do what is due."""
        for kind, offsets in self.done.items():  # what the slice before gave out has been written by now
            self.durable.setdefault(kind, {}).update(offsets)
        self.versions.step()
        items = self.publisher.work(round(self.clock() * 1000))
        self.done = {kind: dict(offsets) for kind, offsets in self.next.items()}
        if (pending := self.publisher.pending()) is not None:
            self.done["activity"] = {0: pending}
        _report(self.publisher)
        return [items] if items else [], StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[list[list[Item]], bool]:
        """Finish what is due, within bounds."""
        end, batches = self.clock() + DRAIN, []
        while self.clock() < end and self._seconds() is not None:
            self.versions.wait()
            items, _ = self.on_notify()
            batches += items
            if not (items or self.versions.loading):
                break
        return batches, StatefulBatchLogic.RETAIN

    def notify_at(self) -> datetime | None:
        """When there is work."""
        seconds = self._seconds()
        return None if seconds is None else datetime.fromtimestamp(self.clock() + seconds, UTC)

    def snapshot(self) -> None:
        """Nothing: the state is made again."""

    def _seconds(self) -> float | None:
        due = self.publisher.wait(round(self.clock() * 1000))
        return min(LOADING, due or LOADING) if self.versions.loading else due

    def _take(self, poll: Poll) -> None:
        if poll.messages:
            last = poll.messages[-1]
            self.next.setdefault(poll.kind, {})[last.partition] = last.offset + 1
        if poll.kind == "titles":
            self.publisher.launch([title for _, title in read(poll.messages, decode_title)])
        elif poll.kind == "versions":
            self.versions.announce([Announced(m.offset, v) for m, v in read(poll.messages, decode_version)])
        else:
            for message, record in read(poll.messages, decode_log):
                if isinstance(record, Activity):
                    self.publisher.act(record, message.offset)
                elif isinstance(record, Forgotten):
                    self.publisher.forget(record)
                elif isinstance(record, Title):
                    self.publisher.titles.log(record, message.offset)


class _Versions:
    """Loads the newest version announced, in a thread; where that fails, the one before, unless that is served.

    `held` is the rollback in force: what was learned later waits in `back` for the record that resumes.
    """

    def __init__(self, publisher: Publisher, load: Load, announced: Iterable[Announced]) -> None:
        self.publisher, self.load = publisher, load
        self.held: Announced | None = None
        self.waiting: deque[Announced] = deque(maxlen=KEPT)
        self.back: deque[Announced] = deque(maxlen=KEPT)
        self.announce(announced)  # all there are: a rollback may be long ago and in force
        self.thread = ThreadPoolExecutor(1, "version")
        self._now: tuple[Announced, list[Title], Future[Recommender]] | None = None

    @property
    def loading(self) -> bool:
        """Whether there is a version to wait for."""
        return self._now is not None or bool(self.waiting)

    def announce(self, announced: Iterable[Announced]) -> None:
        """Versions came."""
        for one in announced:
            cause = one.version.cause
            if cause == "learned" and self.held is not None:
                self.back.append(one)
                continue
            if cause == "rollback":
                self.held = one
                self.back.extend(other for other in self.waiting if not self._may(other))
                self.waiting = deque((other for other in self.waiting if self._may(other)), KEPT)
            elif cause == "resume":
                self.held = None
                self.waiting.extend(self.back)
                self.back.clear()
            self.waiting.append(one)
        HELD.set(-1 if self.held is None else self.held.number)

    def wait(self) -> None:
        """Wait a moment for what is being loaded."""
        if self._now is not None:
            futures.wait([self._now[2]], LOADING)

    def step(self) -> None:
        """Serve what has been loaded, begin to load what has not."""
        if self._now is not None and self._now[2].done():
            announced, ahead, future = self._now
            self._now = None
            if self._may(announced):
                self._serve(announced, ahead, future)
        while self._now is None and self.waiting:
            newest = self.waiting.pop()
            if newest.number > self.publisher.number:
                ahead = self.publisher.titles.ahead(newest.version.position)
                self._now = newest, ahead, self.thread.submit(self.load, newest.version.path, ahead)

    def _may(self, announced: Announced) -> bool:
        """Whether no rollback holds this version back; those before the one rolled back to stand in for it."""
        held = self.held
        return held is None or announced.number == held.number or announced.version.step < held.version.step

    def _serve(self, announced: Announced, ahead: Sequence[Title], future: "Future[Recommender]") -> None:
        number, version = announced
        try:
            recommender = future.result()
        except CheckpointError as error:
            PASSED.inc()
            log.warning("Version %d cannot be served. %s", number, error)
            return
        added = {(title.title, title.stamp) for title in ahead}
        rest = [t for t in self.publisher.titles.ahead(version.position) if (t.title, t.stamp) not in added]
        self.publisher.serve(number, recommender, rest)
        log.info("Version %d is served: %d events learned", number, version.learned)


def _report(publisher: Publisher) -> None:
    SERVED.set(publisher.number)
    CACHED.set(len(publisher.viewers))
    WAITING.labels("event").set(len(publisher.acted))
    WAITING.labels("launch").set(len(publisher.entering))
    WAITING.labels("refresh").set(len(publisher.refreshing))
