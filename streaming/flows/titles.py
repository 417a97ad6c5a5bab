"""Flow `titles`: a launch becomes a title that can be recommended, before anybody has seen it.

title-launches -> validated, compared with what is known of the title -> its texts as a vector -> the compacted topic
`titles`, the learner's log `activity`, and Feast (online and offline). The rules:

* The topic's order decides: a later record wins whatever its `ts`. A relaunch says everything anew (what it leaves out
  is gone); one that says nothing new changes nothing and is not passed on, so a producer may send its catalogue daily.
* `launched` is the time of the title's first record (its `ts`, else when it was appended) and never moves.
* `stamp`, the feature store's time, is the record's time in microseconds, at least one after the title's last, so that
  it strictly rises; and never before 1970, where Feast's Redis store stops comparing times.
* A withdrawal takes the title out of the candidates and keeps what is known of it, for the histories that hold it; its
  other fields count only where nothing is known. A later launch without `withdrawn` brings the title back.
* Neither name nor text: a title without a semantic vector, recommended once events have taught its id.

A replay derives the same records again, stamp for stamp and bit for bit: readers pass over a stamp they know. State is
what is known of each title, its text included: its size is the catalogue's. Step ids name it in the recovery store.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import bytewax.operators as op
import numpy as np
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import Sink
from prometheus_client import Counter

from features.text_encoders import Encoder, launch_text
from streaming.kafka.client import StreamError
from streaming.kafka.dead_letters import FUTURE, Rejected, check_times, dead_letter, decode
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import Launch, Title, decode_launch, to_msgpack
from streaming.topics import ACTIVITY, TITLES

LARGEST: Final = 1_048_576  # bytes of a launch
GENRES: Final = 100  # of a title; with the bound on a text, a title's own record stays below the topic's limit
GENRE: Final = 256  # characters
YEARS: Final = range(10_000)
RELEASES_MS: Final = range(-62_135_596_800_000, 253_402_300_800_000)  # the years 1 to 9999
ONE: Final = "0"  # key of the only writer of each sink: launches have one order
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FORMAT: Final = 1  # of a title's state

LAUNCHES: Final = Counter("premiere_launches", "launches by what they did: new, changed, same", ["outcome"])

Row = dict[str, Any]
State = tuple[Any, ...]  # format, stamp, launched, *Content


class Content(NamedTuple):
    """What a launch says of its title."""

    name: str
    genres: tuple[str, ...]
    year: int | None
    released: int | None  # ms
    text: str  # that is embedded
    withdrawn: bool


class TitleLaunch(NamedTuple):
    """A valid launch, and where it came from."""

    title: str
    content: Content
    ts: int  # ms
    appended: int  # ms
    offset: int


class Change(NamedTuple):
    """What is known of a title after an arrival that said something new."""

    title: str
    content: Content
    launched: int  # ms
    stamp: int  # us
    appended: int
    offset: int


class ParsedLaunches(NamedTuple):
    """A poll: its launches by title, and what cannot be used. Both empty: nothing came for a while."""

    titles: dict[str, list[TitleLaunch]]
    rejected: list[Outgoing]


def build(
    *,
    launches: Source[list[Message]],
    titles: Sink[tuple[str, list[Outgoing]]],
    activity: Sink[tuple[str, list[Outgoing]]],
    online: Sink[tuple[str, list[Row]]],
    offline: Sink[tuple[str, list[Row]]],
    dead_letters: Sink[tuple[str, list[Outgoing]]],
    encode: Encoder,
    future: timedelta = FUTURE,
) -> Dataflow:
    """The flow. `launches` yields polls (an empty one: silence)."""
    flow = Dataflow("titles")
    polls = op.input("title_launches", flow, launches)  # [Message]
    sorted_polls = op.map("sorted_polls", polls, lambda poll: sort(poll, future))  # Sorted
    rejected = op.flat_map("rejected", sorted_polls, lambda poll: [(ONE, poll.rejected)] if poll.rejected else [])
    by_title = op.flat_map("by_title", sorted_polls, lambda poll: poll.titles.items())  # (title, [Arrival])
    changes = op.stateful_batch("catalogue", by_title, _TitleLogic)  # (title, Change)
    encoded = op.flat_map_batch("encoded", changes, lambda batch: [embed([c for _, c in batch], encode)])  # [Title]
    recorded = op.map("recorded", encoded, lambda batch: (ONE, [_record(TITLES, title) for title in batch]))
    logged = op.map("logged", encoded, lambda batch: (ONE, [_record(ACTIVITY, title) for title in batch]))
    rows = op.map("rows", encoded, lambda batch: (ONE, [row(title) for title in batch]))  # ("0", [Row])
    silence = op.filter("silence", sorted_polls, lambda poll: not (poll.titles or poll.rejected))
    nothing = op.map("nothing", silence, lambda _: (ONE, list[Row]()))  # an idle sink publishes nothing
    op.output("titles", recorded, titles)
    op.output("activity", logged, activity)
    op.output("online", rows, online)
    op.output("offline", op.merge("offline_rows", rows, nothing), offline)
    op.output("dead_letters", rejected, dead_letters)
    return flow


def sort(poll: list[Message], future: timedelta = FUTURE) -> ParsedLaunches:
    """Validate a poll: its launches by title, in the order they came, and a dead letter for each other message."""
    ahead = int(future.total_seconds() * 1000)
    titles: dict[str, list[TitleLaunch]] = {}
    rejected = []
    for message in poll:
        try:
            arrival = _arrival(message, ahead)
            titles.setdefault(arrival.title, []).append(arrival)
        except Rejected as reason:
            rejected.append(dead_letter(message, str(reason)))
    return ParsedLaunches(titles, rejected)


def _arrival(message: Message, ahead: int) -> TitleLaunch:
    """A valid launch. Raises Rejected."""
    launch = decode(decode_launch, message, LARGEST)
    appended = message.appended
    ts = appended if launch.ts is None else launch.ts
    check_times(ts, appended, ahead)
    if launch.year is not None and launch.year not in YEARS:
        raise Rejected(f"out of range: the year {launch.year}")
    if launch.released is not None and launch.released not in RELEASES_MS:
        raise Rejected(f"out of range: released at {launch.released} ms")
    if len(launch.genres) > GENRES or any(len(genre) > GENRE for genre in launch.genres):
        raise Rejected(f"out of range: more than {GENRES} genres, or one of more than {GENRE} characters")
    return TitleLaunch(launch.title, _content(launch), ts, appended, message.offset)


def _content(launch: Launch) -> Content:
    text = launch_text(launch.name, launch.genres, launch.overview, launch.text)
    return Content(launch.name, tuple(launch.genres), launch.year, launch.released, text, launch.withdrawn)


def relaunch(state: State | None, arrival: TitleLaunch) -> tuple[State, Change | None]:
    """What is known after a launch, and what changed by it: None where it says nothing new."""
    title, content, ts, appended, offset = arrival
    stamp, launched, known = max(ts * 1000, 1), ts, None
    if state is not None:
        _, last, launched, *fields = state
        stamp, known = max(stamp, last + 1), Content(*fields)
        content = known._replace(withdrawn=True) if content.withdrawn else content
        if content == known:
            LAUNCHES.labels("same").inc()
            return state, None
    LAUNCHES.labels("new" if known is None else "changed").inc()
    return (FORMAT, stamp, launched, *content), Change(title, content, launched, stamp, appended, offset)


class _TitleLogic(StatefulBatchLogic[list[TitleLaunch], Change, State]):
    """What is known of one title, in the engine's hands."""

    __slots__ = ("state",)

    def __init__(self, state: State | None) -> None:
        if state is not None and state[0] != FORMAT:
            raise StreamError(f"A title's state of format {state[0]} was written by a newer version: run that one.")
        self.state = state

    def on_batch(self, values: list[list[TitleLaunch]]) -> tuple[list[Change], bool]:
        """Take in the title's launches of one poll, or of several at once."""
        changes = []
        for arrival in (arrival for arrivals in values for arrival in arrivals):
            self.state, change = relaunch(self.state, arrival)
            changes += [change] if change else []
        return changes, StatefulBatchLogic.RETAIN

    def snapshot(self) -> State:
        """The state in plain values."""
        assert self.state is not None
        return self.state


def embed(changes: Sequence[Change], encode: Encoder) -> list[Title]:
    """The titles after their changes, in the topic's order, their texts embedded together."""
    ordered = sorted(changes, key=lambda change: change.offset)
    vectors = encode([change.content.text for change in ordered])
    assert len(vectors) == len(ordered), "an encoder gives a row for each text"
    return [_title(change, vector) for change, vector in zip(ordered, vectors, strict=True)]


def _title(change: Change, vector: np.ndarray[Any, np.dtype[np.float32]]) -> Title:
    title, content, launched, stamp, appended, offset = change
    return Title(
        title=title,
        name=content.name,
        genres=list(content.genres),
        year=content.year,
        released=content.released,
        launched=launched,
        stamp=stamp,
        withdrawn=content.withdrawn,
        semantic=vector.astype("<f4").tobytes() if vector.any() else b"",
        appended=appended,
        offset=offset,
    )


def _record(topic: str, title: Title) -> Outgoing:
    return Outgoing(topic, title.title.encode(), to_msgpack(title))


def row(title: Title) -> Row:
    """A title's features at its stamp: a row of `features.definitions.TITLE_ROW`."""
    return {
        "title_id": title.title,
        "event_timestamp": EPOCH + timedelta(microseconds=title.stamp),
        "created": EPOCH + timedelta(milliseconds=title.appended),
        "name": title.name,
        "genres": title.genres,
        "year": title.year,
        "withdrawn": title.withdrawn,
        "semantic": np.frombuffer(title.semantic, "<f4").tolist(),
    }
