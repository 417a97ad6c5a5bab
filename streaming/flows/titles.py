"""Flow `titles`: turns launches into titles that can be recommended before anyone has interacted with them.

title-launches, title-withdrawals -> validated, compared with the known state of the title -> its texts embedded -> the
compacted topic `titles`, the learner log `activity`, and Feast (online and offline). `streaming/state/title_state.py`
has the rules by which launches and withdrawals change a title.

A title without any text has no embedding, so it cannot be matched with users. At its launch `publish` scores it for the
most recently active users, as a candidate for the new-title slots. It is ranked on its counts once it has events.

Reprocessing produces the same records again; readers ignore a stamp that they know. Step ids are keys of the recovery
store.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import Sink

from features.text_encoders import TextEncoder, launch_text
from streaming.flows.title_output import TitleRow, catalog_record, embed, log_record, title_row
from streaming.kafka.dead_letters import (
    MAX_FUTURE,
    InvalidRecord,
    LetterBudget,
    check_id,
    check_not_moved,
    check_record_time,
    check_times,
    dead_letter,
    decode,
)
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import (
    MAX_GENRE_CHARS,
    MAX_GENRES,
    MAX_LAUNCH_BYTES,
    CatalogTitle,
    Launch,
    decode_launch,
    decode_withdrawal,
)
from streaming.state.expiry import DAY_MS, Expiration, Expiry
from streaming.state.title_embedder import TitleEmbedder, VectorSpace, launch_vector
from streaming.state.title_state import (
    TitleChange,
    TitleContent,
    TitleLaunch,
    Withdrawal,
    apply,
    check_format,
    last_change,
)
from streaming.stores.lost_rows import LostRows, Restore, add_restores
from streaming.topics import TITLE_WITHDRAWALS

MAX_WITHDRAWAL_BYTES: Final = 65_536
MAX_NAME_BYTES: Final = 1_024  # of a name, and of all genres together, that are stored; the embedded text has more
VALID_YEARS: Final = range(1, 10_000)
VALID_RELEASE_MS: Final = range(-62_135_596_800_000, 253_402_300_800_000)  # the years 1 to 9999
LIFETIME_MS: Final = 365 * DAY_MS  # of a title's state without records
MAX_TITLES: Final = 400_000  # titles whose state a process keeps
SINGLE_WRITER: Final = "0"  # key of all output: one writer per sink keeps the order of the launches

TitleItem = TitleLaunch | Withdrawal | Expiration | Restore


class ParsedPoll(NamedTuple):
    """A parsed poll of one of the topics. Both fields are empty if no message arrived for a while."""

    titles: dict[str, list[TitleLaunch | Withdrawal]]  # by title, in the poll's order
    letters: list[Outgoing]  # dead letters


class Ended(NamedTuple):
    """The state of a title ended."""

    title: str


class Unchanged(NamedTuple):
    """The last change of a title, whose row the online store has lost."""

    change: TitleChange


TitleOutcome = TitleChange | Unchanged | Ended


class Embedded(NamedTuple):
    """What became of a batch of changes."""

    titles: list[CatalogTitle]  # in the order of their stamps
    unchanged: list[CatalogTitle]  # whose rows the online store has lost
    ended: list[str]  # titles whose state ended after their changes


def build(
    *,
    launches: Source[list[Message]],
    withdrawals: Source[list[Message]],
    titles: Sink[tuple[str, list[Outgoing]]],
    activity: Sink[tuple[str, list[Outgoing]]],
    online: Sink[tuple[str, list[TitleRow]]],
    offline: Sink[tuple[str, list[TitleRow]]],
    dead_letters: Sink[tuple[str, list[Outgoing]]],
    encode: TextEncoder,
    vectors: VectorSpace | None = None,
    max_future: timedelta = MAX_FUTURE,
    lifetime_ms: int = LIFETIME_MS,
    max_titles: int = MAX_TITLES,
    lost_rows: LostRows | None = None,
    clock: Callable[[], float] = time.time,
) -> Dataflow:
    """The flow. Both sources yield polls; an empty one of `launches` means that no message arrived for a while.

    The state of a title ends after `lifetime_ms` without records, or earlier if a process has more than `max_titles`.
    The title's row in Feast's online store is then deleted, so that Redis holds no more titles than the flow.
    `lost_rows` tells that the store has lost its rows. `encode` embeds the texts; `vectors` is the space of the vectors
    that launches may bring.
    """
    flow = Dataflow("titles")
    polls = op.input("title_launches", flow, launches)  # [Message]
    parsed_launches = op.map("parsed", polls, lambda poll: parse_launches(poll, max_future, vectors))  # ParsedPoll
    withdrawal_polls = op.input("title_withdrawals", flow, withdrawals)  # [Message]
    parsed_withdrawals = op.map("parsed_withdrawals", withdrawal_polls, parse_withdrawals)  # ParsedPoll
    parsed = op.merge("parsed_polls", parsed_withdrawals, parsed_launches)
    letters = op.flat_map("letters", parsed, partial(_letters, LetterBudget()))  # ("0", [Outgoing])
    expiry = Expiry(max_titles)
    by_title = op.flat_map("by_title", parsed, lambda poll: _by_title(poll, expiry, clock()))  # (title, [TitleItem])
    by_title = add_restores(flow, by_title, lost_rows, expiry.keys)
    changes = op.stateful_batch("catalog", by_title, lambda saved: _TitleLogic(lifetime_ms, expiry, saved))
    embedded = op.flat_map_batch("embedded", changes, partial(_embedded, TitleEmbedder(encode, vectors)))  # Embedded
    records = op.map("records", embedded, lambda done: (SINGLE_WRITER, [*map(catalog_record, done.titles)]))
    log = op.map("log", embedded, lambda done: (SINGLE_WRITER, [*map(log_record, done.titles)]))
    rows = op.map("rows", embedded, lambda done: (SINGLE_WRITER, [title_row(one) for one in done.titles]))
    online_rows = op.map("online_rows", embedded, lambda done: (SINGLE_WRITER, _online_rows(done)))
    silence = op.filter("silence", parsed_launches, lambda poll: not (poll.titles or poll.letters))
    # A Parquet sink publishes its files at a snapshot, and the engine takes none of a sink that gets no items.
    # The online sink writes the rows that it held during an outage.
    empty_batches = op.map("empty_batches", silence, lambda _: (SINGLE_WRITER, list[TitleRow]()))
    op.output("titles", records, titles)
    op.output("activity", log, activity)
    op.output("online", op.merge("online_batches", online_rows, empty_batches), online)
    op.output("offline", op.merge("offline_rows", rows, empty_batches), offline)
    op.output("dead_letters", letters, dead_letters)
    return flow


def _letters(budget: LetterBudget, poll: ParsedPoll) -> list[tuple[str, list[Outgoing]]]:
    letters = budget.take(poll.letters)
    return [(SINGLE_WRITER, letters)] if letters else []


def _by_title(poll: ParsedPoll, expiry: Expiry, seconds: float) -> list[tuple[str, list[TitleItem]]]:
    """The poll's launches and withdrawals, and an expiration for each title whose state may end now."""
    newest = max((items[-1].appended for items in poll.titles.values()), default=0)
    titles: list[tuple[str, list[TitleItem]]] = [(title, [*items]) for title, items in poll.titles.items()]
    return titles + [(title, [expiration]) for title, expiration in expiry.due(newest, int(seconds * 1000))]


def parse_launches(
    poll: list[Message], max_future: timedelta = MAX_FUTURE, vectors: VectorSpace | None = None
) -> ParsedPoll:
    """Validate a poll of `title-launches`: its launches by title, and a dead letter for each invalid message."""
    max_ahead_ms = int(max_future.total_seconds() * 1000)
    return _parse(poll, lambda message: _parse_launch(message, max_ahead_ms, vectors))


def parse_withdrawals(poll: list[Message]) -> ParsedPoll:
    """Validate a poll of `title-withdrawals`, as `parse_launches` does."""
    return _parse(poll, _parse_withdrawal)


def _parse(poll: list[Message], parse: Callable[[Message], TitleLaunch | Withdrawal]) -> ParsedPoll:
    titles: dict[str, list[TitleLaunch | Withdrawal]] = {}
    letters = []
    for message in poll:
        try:
            item = parse(message)
            titles.setdefault(item.title, []).append(item)
        except InvalidRecord as reason:
            letters.append(dead_letter(message, str(reason)))
    return ParsedPoll(titles, letters)


def _parse_withdrawal(message: Message) -> Withdrawal:
    """The valid withdrawal in a message. Raises InvalidRecord."""
    title = decode(decode_withdrawal, message, MAX_WITHDRAWAL_BYTES).title
    check_id("the title", title)
    check_record_time(message.appended)
    return Withdrawal(title, message.appended, message.offset)


def _parse_launch(message: Message, max_ahead_ms: int, vectors: VectorSpace | None) -> TitleLaunch:
    """The valid launch in a message. Raises InvalidRecord."""
    check_not_moved(message, "withdrawn", TITLE_WITHDRAWALS)
    launch = decode(decode_launch, message, MAX_LAUNCH_BYTES)
    check_id("the title", launch.title)
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
    content = _content(launch, launch_vector(launch, vectors))
    return TitleLaunch(launch.title, content, ts, appended, message.offset)


def _content(launch: Launch, vector: bytes) -> TitleContent:
    """The content in bounded size. The text contains name and genres in full length."""
    text = launch_text(launch.name, launch.genres, launch.overview, launch.text)
    genres, size = [], 0
    for genre in launch.genres:
        if (size := size + len(genre.encode())) > MAX_NAME_BYTES:
            break
        genres.append(genre)
    name = launch.name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return TitleContent(name, tuple(genres), launch.year, launch.released, text, vector, launch.space if vector else "")


class _TitleLogic(StatefulBatchLogic[list[TitleItem], TitleOutcome, tuple[Any, ...]]):
    """Keeps the state of one title in the engine."""

    __slots__ = ("expiry", "lifetime_ms", "state")

    def __init__(self, lifetime_ms: int, expiry: Expiry, saved: tuple[Any, ...] | None) -> None:
        self.lifetime_ms, self.expiry = lifetime_ms, expiry
        self.state = None if saved is None else check_format(saved)
        if self.state is not None:
            expiry.add(self.state.title, self.state.ends_at(lifetime_ms))

    def on_batch(self, values: list[list[TitleItem]]) -> tuple[list[TitleOutcome], bool]:
        """Apply the title's launches and withdrawals of one or several polls, and end the state if it is due."""
        changes, is_new, items = list[TitleOutcome](), self.state is None, list(chain.from_iterable(values))
        for item in items:
            if isinstance(item, TitleLaunch | Withdrawal):
                self.state, change = apply(self.state, item)
                changes += [change] if change else []
            elif isinstance(item, Restore) and self.state is not None:
                changes.append(Unchanged(last_change(self.state)))
        if self.state is None:
            return [], StatefulBatchLogic.DISCARD  # it has ended already
        ends_at = self.state.ends_at(self.lifetime_ms)
        if is_new:
            self.expiry.add(self.state.title, ends_at)
        for item in items:
            if isinstance(item, Expiration) and self.expiry.ends(self.state.title, ends_at, 0, item):
                return [*changes, Ended(self.state.title)], StatefulBatchLogic.DISCARD
        return changes, StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values."""
        assert self.state is not None
        return tuple(self.state)


def _embedded(embedder: TitleEmbedder, batch: list[tuple[str, TitleOutcome]]) -> list[Embedded]:
    changes = [change for _, change in batch if isinstance(change, TitleChange)]
    unchanged = [outcome.change for _, outcome in batch if isinstance(outcome, Unchanged)]
    newest, titles = dict(batch), embed(changes, embedder)
    ended = [title for title, last in newest.items() if isinstance(last, Ended)]
    return [Embedded(titles, embed(unchanged, embedder) if unchanged else [], ended)]


def _online_rows(done: Embedded) -> list[TitleRow]:
    """Rows for `features.store.write_title_semantics`: the ended titles are deleted."""
    rows = map(title_row, [*done.titles, *done.unchanged])
    return [*rows, *({"title_id": title} for title in done.ended)]
