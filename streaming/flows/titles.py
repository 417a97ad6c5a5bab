"""Flow `titles`: turns launches into titles that can be recommended before anyone has interacted with them.

title-launches -> validated, compared with the known state of the title -> its texts embedded -> the compacted topic
`titles`, the learner log `activity`, and Feast (online and offline). The rules:

- The order of the topic decides: a later record wins whatever its `ts`. Each record without `withdrawn` replaces the
  title completely; omitted fields are cleared. An unchanged record is not passed on, so a producer may send its whole
  catalog daily.
- `launched` is the time of the title's first record (its `ts`, else its append time) and never changes.
- `stamp` orders the records of a title and is its event time in the feature store: the record's append time in
  microseconds, at least one more than the title's previous stamp. It never depends on the producer's `ts`, so a later
  record also wins after the recovery store was lost. It is after 1970: Feast's Redis store compares no earlier times.
- A withdrawal removes the title from the candidates but keeps its content, because histories contain it. The other
  fields of a withdrawal count only if the title is unknown. A later launch without `withdrawn` restores the title.
- A title without any text has no embedding, so it cannot be matched with users. At its launch `publish` scores it for
  the most recently active users, as a candidate for the new-title slots. It is ranked on its counts once it has events.

Reprocessing produces the same records again, with the same stamps, bit for bit; readers ignore a stamp that they know.
The state contains the content of each title, including its text. Step ids are keys of the recovery store.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

import bytewax.operators as op
import numpy as np
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import Sink
from prometheus_client import Counter

from features.text_encoders import Encoder, launch_text
from streaming.errors import StreamError
from streaming.kafka.dead_letters import MAX_FUTURE, InvalidRecord, check_times, dead_letter, decode
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import Launch, Title, decode_launch, to_msgpack
from streaming.state.user_history import UNIX_EPOCH
from streaming.topics import ACTIVITY, TITLES

MAX_LAUNCH_BYTES: Final = 1_048_576
MAX_GENRES: Final = 100  # per title; together with the limit on texts it keeps a title's record below the topic's limit
MAX_GENRE_CHARS: Final = 256
VALID_YEARS: Final = range(10_000)
VALID_RELEASE_MS: Final = range(-62_135_596_800_000, 253_402_300_800_000)  # the years 1 to 9999
SINGLE_WRITER: Final = "0"  # key of all output: one writer per sink keeps the order of the launches
STATE_FORMAT: Final = 1

LAUNCHES: Final = Counter("premiere_launches_total", "Launches by outcome: new, changed or same.", ["outcome"])

TitleRow = dict[str, Any]
TitleState = tuple[Any, ...]  # format, stamp, launched, *TitleContent


class TitleContent(NamedTuple):
    """The content of a launch."""

    name: str
    genres: tuple[str, ...]
    year: int | None
    released: int | None  # ms
    text: str  # to embed
    withdrawn: bool


class TitleLaunch(NamedTuple):
    """A valid launch and its position."""

    title: str
    content: TitleContent
    ts: int  # ms
    appended: int  # ms
    offset: int


class TitleChange(NamedTuple):
    """The state of a title after a launch that changed it."""

    title: str
    content: TitleContent
    launched: int  # ms
    stamp: int  # us
    appended: int
    offset: int


class ParsedLaunches(NamedTuple):
    """A parsed poll. Both fields are empty if no message arrived for a while."""

    titles: dict[str, list[TitleLaunch]]  # by title, in the poll's order
    letters: list[Outgoing]  # dead letters


def build(
    *,
    launches: Source[list[Message]],
    titles: Sink[tuple[str, list[Outgoing]]],
    activity: Sink[tuple[str, list[Outgoing]]],
    online: Sink[tuple[str, list[TitleRow]]],
    offline: Sink[tuple[str, list[TitleRow]]],
    dead_letters: Sink[tuple[str, list[Outgoing]]],
    encode: Encoder,
    max_future: timedelta = MAX_FUTURE,
) -> Dataflow:
    """The flow. `launches` yields polls; an empty poll means that no message arrived for a while."""
    flow = Dataflow("titles")
    polls = op.input("title_launches", flow, launches)  # [Message]
    parsed = op.map("parsed", polls, lambda poll: parse_poll(poll, max_future))  # ParsedLaunches
    letters = op.flat_map("letters", parsed, lambda poll: [(SINGLE_WRITER, poll.letters)] if poll.letters else [])
    by_title = op.flat_map("by_title", parsed, lambda poll: poll.titles.items())  # (title, [TitleLaunch])
    changes = op.stateful_batch("catalog", by_title, _TitleLogic)  # (title, TitleChange)
    embedded = op.flat_map_batch("embedded", changes, lambda batch: [embed([c for _, c in batch], encode)])  # [Title]
    records = op.map("records", embedded, lambda batch: (SINGLE_WRITER, [_record(TITLES, title) for title in batch]))
    log = op.map("log", embedded, lambda batch: (SINGLE_WRITER, [_record(ACTIVITY, title) for title in batch]))
    rows = op.map("rows", embedded, lambda batch: (SINGLE_WRITER, [title_row(title) for title in batch]))
    silence = op.filter("silence", parsed, lambda poll: not (poll.titles or poll.letters))
    # A Parquet sink publishes its files at a snapshot, and the engine takes none of a sink that gets no items.
    empty_batches = op.map("empty_batches", silence, lambda _: (SINGLE_WRITER, list[TitleRow]()))
    op.output("titles", records, titles)
    op.output("activity", log, activity)
    op.output("online", rows, online)
    op.output("offline", op.merge("offline_rows", rows, empty_batches), offline)
    op.output("dead_letters", letters, dead_letters)
    return flow


def parse_poll(poll: list[Message], max_future: timedelta = MAX_FUTURE) -> ParsedLaunches:
    """Validate a poll: its launches by title in their order, and a dead letter for each invalid message."""
    max_ahead_ms = int(max_future.total_seconds() * 1000)
    titles: dict[str, list[TitleLaunch]] = {}
    letters = []
    for message in poll:
        try:
            launch = _parse_launch(message, max_ahead_ms)
            titles.setdefault(launch.title, []).append(launch)
        except InvalidRecord as reason:
            letters.append(dead_letter(message, str(reason)))
    return ParsedLaunches(titles, letters)


def _parse_launch(message: Message, max_ahead_ms: int) -> TitleLaunch:
    """The valid launch in a message. Raises InvalidRecord."""
    launch = decode(decode_launch, message, MAX_LAUNCH_BYTES)
    appended = message.appended
    ts = appended if launch.ts is None else launch.ts
    check_times(ts, appended, max_ahead_ms)
    if launch.year is not None and launch.year not in VALID_YEARS:
        raise InvalidRecord(f"out of range: the year {launch.year}")
    if launch.released is not None and launch.released not in VALID_RELEASE_MS:
        raise InvalidRecord(f"out of range: the release time {launch.released} ms")
    if len(launch.genres) > MAX_GENRES or any(len(genre) > MAX_GENRE_CHARS for genre in launch.genres):
        raise InvalidRecord(
            f"out of range: more than {MAX_GENRES} genres, or a genre over {MAX_GENRE_CHARS} characters"
        )
    return TitleLaunch(launch.title, _content(launch), ts, appended, message.offset)


def _content(launch: Launch) -> TitleContent:
    text = launch_text(launch.name, launch.genres, launch.overview, launch.text)
    return TitleContent(launch.name, tuple(launch.genres), launch.year, launch.released, text, launch.withdrawn)


def apply_launch(state: TitleState | None, launch: TitleLaunch) -> tuple[TitleState, TitleChange | None]:
    """The state of a title after a launch, and the change; None if the launch changed nothing."""
    title, content, ts, appended, offset = launch
    stamp, launched, known = max(appended * 1000, 1), ts, None
    if state is not None:
        _, last_stamp, launched, *fields = state
        stamp, known = max(stamp, last_stamp + 1), TitleContent(*fields)
        content = known._replace(withdrawn=True) if content.withdrawn else content
        if content == known:
            LAUNCHES.labels("same").inc()
            return state, None
    LAUNCHES.labels("new" if known is None else "changed").inc()
    return (STATE_FORMAT, stamp, launched, *content), TitleChange(title, content, launched, stamp, appended, offset)


class _TitleLogic(StatefulBatchLogic[list[TitleLaunch], TitleChange, TitleState]):
    """Keeps the state of one title in the engine."""

    __slots__ = ("state",)

    def __init__(self, state: TitleState | None) -> None:
        if state is not None and state[0] != STATE_FORMAT:
            raise StreamError(
                f"A newer version of Premiere wrote this title's state (format {state[0]}): run that version."
            )
        self.state = state

    def on_batch(self, values: list[list[TitleLaunch]]) -> tuple[list[TitleChange], bool]:
        """Apply the title's launches of one or several polls."""
        changes = []
        for launch in (launch for launches in values for launch in launches):
            self.state, change = apply_launch(self.state, launch)
            changes += [change] if change else []
        return changes, StatefulBatchLogic.RETAIN

    def snapshot(self) -> TitleState:
        """The state as plain values."""
        assert self.state is not None
        return self.state


def embed(changes: Sequence[TitleChange], encode: Encoder) -> list[Title]:
    """The titles after their changes, in the topic's order. All texts are embedded in one call."""
    ordered = sorted(changes, key=lambda change: change.offset)
    vectors = encode([change.content.text for change in ordered])
    assert len(vectors) == len(ordered), "an encoder returns one row per text"
    return [_title(change, vector) for change, vector in zip(ordered, vectors, strict=True)]


def _title(change: TitleChange, vector: np.ndarray[Any, np.dtype[np.float32]]) -> Title:
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


def title_row(title: Title) -> TitleRow:
    """A title's row in the feature store (`features.definitions.TITLE_SEMANTICS_SCHEMA`)."""
    return {
        "title_id": title.title,
        "event_timestamp": UNIX_EPOCH + timedelta(microseconds=title.stamp),
        "created": UNIX_EPOCH + timedelta(milliseconds=title.appended),
        "name": title.name,
        "genres": title.genres,
        "year": title.year,
        "withdrawn": title.withdrawn,
        "semantic": np.frombuffer(title.semantic, "<f4").tolist(),
    }
