"""Flow `features`: turns user events into feature rows and into activity records for the learner log.

user-events -> validated, deduplicated and merged into the user's history -> Feast (online the newest row, offline one
row per event) and the topic `activity`. There is one activity record per user and poll, or several if the poll has more
than half a history of the user's events. A poll returns the events that have arrived, so a record holds many events
under load and one otherwise. The rows do not depend on where polls were cut.

A request to erase a user ends the user's history. It is written to the learner log, in order with the user's activity,
and to the Parquet log of erasure requests, which compaction reads. The online row and the state are deleted. Later
events start a new history, so its count and its rows' times start again. The online store accepts them, because the old
row is gone.

Step ids are keys of the recovery store: renaming a step discards its state.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from typing import Final, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import Sink
from msgspec import MsgspecError, structs
from prometheus_client import Counter

from streaming.kafka.dead_letters import (
    MAX_FUTURE,
    InvalidRecord,
    check_record_time,
    check_times,
    dead_letter,
    decode,
    erasure_note,
)
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import (
    ACTIVITY_HISTORY,
    Activity,
    Tick,
    UserErasure,
    action_code,
    decode_erase_user,
    decode_event,
    to_msgpack,
)
from streaming.state.user_history import UNIX_EPOCH, HistoryState, UserEvent, UserHistory, UserRow
from streaming.topics import ACTIVITY

MAX_EVENT_BYTES: Final = 65_536  # a dead letter can store all of such an event
# New events in one activity record, as a fraction of the history's size. The rest is context for the oldest new event.
MAX_NEW_FRACTION: Final = 0.5
SINGLE_WRITER: Final = "0"  # key of all records for the learner log: one writer keeps their order

EVENTS: Final = Counter("premiere_events_total", "Events added to a user's history.")
DUPLICATES: Final = Counter("premiere_duplicates_total", "Events dropped because their event_id was already seen.")
LATE_EVENTS: Final = Counter("premiere_late_events_total", "Events older than the newest event of the same user.")
USER_ERASURES: Final = Counter("premiere_user_erasures_total", "Requests to erase a user.")


class ParsedEvents(NamedTuple):
    """A parsed poll. Both fields are empty if no message arrived for a while."""

    users: dict[str, list[UserEvent | UserErasure]]  # by user, in the poll's order
    letters: list[Outgoing]  # dead letters, and the notes of erasure requests after the letters that they cover


class Update(NamedTuple):
    """The changes of one user."""

    rows: list[UserRow]  # one per event
    records: list[Activity | UserErasure]  # for the learner log: one activity, more if there are very many events
    erasures: list[UserRow]  # one per erasure request


def build(
    *,
    events: Source[list[Message]],
    activity: Sink[tuple[str, list[Outgoing]]],
    online: Sink[tuple[str, list[UserRow]]],
    offline: Sink[tuple[str, list[UserRow]]],
    erasures: Sink[tuple[str, list[UserRow]]],
    dead_letters: Sink[tuple[str, list[Outgoing]]],
    history: int = ACTIVITY_HISTORY,
    max_future: timedelta = MAX_FUTURE,
    offline_shards: int = 1,
    online_shards: int | None = None,
    source_id: str = "",
    clock: Callable[[], float] = time.time,
) -> Dataflow:
    """The flow.

    - events: yields polls; an empty poll means that no message arrived for a while
    - history: the number of a user's events that are kept
    - max_future: how far an event's time may be ahead of its record time
    - offline_shards: `offline` and `erasures` get the keys "0" to `offline_shards` - 1; must never change
    - online_shards: `online` gets the keys "0" to `online_shards` - 1; may change; default: `offline_shards`
    - source_id: identity of the topic of `events`; the records of the learner log contain it
    """
    keys = [str(shard) for shard in range(offline_shards)]
    online_keys = [str(shard) for shard in range(online_shards or offline_shards)]
    flow = Dataflow("features")
    polls = op.input("user_events", flow, events)  # [Message]
    parsed = op.map("parsed", polls, lambda poll: parse_poll(poll, max_future))  # ParsedEvents
    letters = op.flat_map("letters", parsed, lambda poll: [(SINGLE_WRITER, poll.letters)] if poll.letters else [])
    by_user = op.flat_map("by_user", parsed, lambda poll: poll.users.items())  # (user, [UserEvent | UserErasure])
    updates = op.stateful_batch("histories", by_user, lambda state: _UserLogic(history, state))  # (user, Update)
    silence = op.filter("silence", parsed, lambda poll: not (poll.users or poll.letters))
    ticks = op.map("ticks", silence, lambda _: (SINGLE_WRITER, [_tick(clock())]))  # ("0", [Outgoing])
    records = op.flat_map_batch("records", updates, lambda batch: _log_records(batch, source_id))  # ("0", [Outgoing])
    online_rows = op.flat_map_batch("online_rows", updates, lambda batch: _online_rows(batch, online_keys))
    rows = op.flat_map_batch("rows", updates, lambda batch: _rows(batch, keys))  # (shard, [UserRow]), as the one above
    erased = op.flat_map_batch("erased", updates, lambda batch: _erasures(batch, keys))  # (shard, [UserRow])
    no_rows: list[tuple[str, list[UserRow]]] = [(key, []) for key in keys]
    # A Parquet sink publishes its files at a snapshot, and the engine takes none of a sink that gets no items.
    empty_batches = op.flat_map("empty_batches", silence, lambda _: no_rows)
    op.output("activity", op.merge("log", records, ticks), activity)
    op.output("online", online_rows, online)
    op.output("offline", op.merge("offline_rows", rows, empty_batches), offline)
    op.output("erasures", op.merge("erasure_rows", erased, empty_batches), erasures)
    op.output("dead_letters", letters, dead_letters)
    return flow


def parse_poll(poll: list[Message], max_future: timedelta = MAX_FUTURE) -> ParsedEvents:
    """Validate a poll: its events by user in their order, and a dead letter for each invalid message."""
    max_ahead_ms = int(max_future.total_seconds() * 1000)
    users: dict[str, list[UserEvent | UserErasure]] = {}
    letters = []
    for message in poll:
        try:
            event = _parse_erasure(message) or _parse_event(message, max_ahead_ms)
            users.setdefault(event.user, []).append(event)
            if isinstance(event, UserErasure):
                letters.append(erasure_note(message))
        except InvalidRecord as reason:
            letters.append(dead_letter(message, str(reason)))
    return ParsedEvents(users, letters)


def _parse_erasure(message: Message) -> UserErasure | None:
    """The erasure request in a message; None if it is something else. Raises InvalidRecord."""
    if message.value is None or b'"erase"' not in message.value or len(message.value) > MAX_EVENT_BYTES:
        return None
    try:
        request = decode_erase_user(message.value)
    except (MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # an event may have an unknown field of this name, of any type
    if not request.erase:
        return None
    _check_key(message, request.user)
    check_record_time(message.appended)
    return UserErasure(user=request.user, partition=message.partition, offset=message.offset, appended=message.appended)


def _check_key(message: Message, user: str) -> None:
    if message.key != user.encode():
        raise InvalidRecord("key: the record's key is not its user, so the user's events may lie in several partitions")


def _parse_event(message: Message, max_ahead_ms: int) -> UserEvent:
    """The valid event in a message. Raises InvalidRecord."""
    event = decode(decode_event, message, MAX_EVENT_BYTES)
    _check_key(message, event.user)
    try:
        action = action_code(event)
    except KeyError:
        raise InvalidRecord(f"unknown action: {event.action!r}") from None
    check_times(event.ts, message.appended, max_ahead_ms)
    position = message.partition, message.offset, message.appended
    return UserEvent(event.user, event.title, event.ts, action, event.event_id, *position)


class _UserLogic(StatefulBatchLogic[list[UserEvent | UserErasure], Update, HistoryState]):
    """Keeps one user's history in the engine."""

    __slots__ = ("history", "max_new", "size")

    def __init__(self, size: int, state: HistoryState | None) -> None:
        self.size, self.history = size, UserHistory(size, state)
        self.max_new = max(1, int(size * MAX_NEW_FRACTION))

    def on_batch(self, values: list[list[UserEvent | UserErasure]]) -> tuple[list[Update], bool]:
        """Apply the user's events of one or several polls. An erased user leaves no state."""
        items = values[0] if len(values) == 1 else list(chain.from_iterable(values))
        update = Update([], [], [])
        events: list[UserEvent] = []
        for item in items:
            if isinstance(item, UserErasure):
                self._apply(events, update)
                self._erase(item, update)
                events = []
            else:
                events.append(item)
        self._apply(events, update)
        _count(update.rows, len(items) - len(update.erasures))
        return [update] if update.records else [], self.history.count == 0

    def _apply(self, events: list[UserEvent], update: Update) -> None:
        for start in range(0, len(events), self.max_new):
            rows = [row for event in events[start : start + self.max_new] if (row := self.history.apply(event))]
            if rows:
                update.rows.extend(rows)
                update.records.append(self.history.activity(events[0].user))

    def _erase(self, request: UserErasure, update: Update) -> None:
        self.history = UserHistory(self.size)
        update.records.append(request)
        update.erasures.append(
            {
                "user_id": request.user,
                "partition": request.partition,
                "offset": request.offset,
                "appended": UNIX_EPOCH + timedelta(milliseconds=request.appended),
            }
        )
        USER_ERASURES.inc()

    def snapshot(self) -> HistoryState:
        """The history as plain values."""
        return self.history.snapshot()


def _count(rows: list[UserRow], events: int) -> None:
    EVENTS.inc(len(rows))
    if duplicates := events - len(rows):
        DUPLICATES.inc(duplicates)
    if late := sum(row["event_ms"] < row["last_event_ms"] for row in rows):
        LATE_EVENTS.inc(late)


def _tick(seconds: float) -> Outgoing:
    return Outgoing(ACTIVITY, None, to_msgpack(Tick(ts=int(seconds * 1000))))


def _log_records(batch: list[tuple[str, Update]], source_id: str) -> list[tuple[str, list[Outgoing]]]:
    """All records of a batch for the learner log."""
    records = [
        Outgoing(ACTIVITY, user.encode(), to_msgpack(structs.replace(record, source=source_id)))
        for user, update in batch
        for record in update.records
    ]
    return [(SINGLE_WRITER, records)]


def _online_rows(batch: list[tuple[str, Update]], keys: list[str]) -> list[tuple[str, list[UserRow]]]:
    """The newest row of each user, by shard. A user's erasure request comes before the row of a new history."""
    newest: list[UserRow] = []
    for _, update in batch:
        newest += update.erasures[-1:]
        erased_at = update.erasures[-1]["offset"] if update.erasures else -1
        newest += [row for row in update.rows[-1:] if row["offset"] > erased_at]
    return _by_shard(newest, keys)


def _erasures(batch: list[tuple[str, Update]], keys: list[str]) -> list[tuple[str, list[UserRow]]]:
    """Erasure requests by shard. If there are none, each shard gets an empty list, so that the sink can publish."""
    erasures = _by_shard([erasure for _, update in batch for erasure in update.erasures], keys)
    return erasures or [(key, []) for key in keys]


def _rows(batch: list[tuple[str, Update]], keys: list[str]) -> list[tuple[str, list[UserRow]]]:
    """All rows, by shard."""
    return _by_shard([row for _, update in batch for row in update.rows], keys)


def _by_shard(rows: list[UserRow], keys: list[str]) -> list[tuple[str, list[UserRow]]]:
    """Split rows by the partition of their event, so that all rows of a user are in one shard."""
    if len(keys) == 1:
        return [(keys[0], rows)]
    shards: dict[str, list[UserRow]] = {}
    for row in rows:
        shards.setdefault(keys[row["partition"] % len(keys)], []).append(row)
    return list(shards.items())
