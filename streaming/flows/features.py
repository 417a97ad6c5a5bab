"""Flow `features`: what a user does becomes that user's features, and an entry in the learner's log.

user-events -> validated, doubles dropped, put into the user's history -> Feast (online the newest row, offline one row
an event) and the topic `activity`. One poll of a partition is the short interval that an activity covers: under load an
activity carries many events, at rest one, and there is no timer. Rows never depend on where polls were cut. What an
event may not be: see `_arrival`.

A request to forget a user ends the history where it lies: it goes into the log, in order with the user's activities,
and beside the offline log as a mark for its compaction; the online row goes, and so does the state. What comes later
begins a new history: its count, and so its rows' times, begin anew, which a store without the row accepts.

Step ids name the state in the recovery store: they are part of the format of what is kept.
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
from msgspec import MsgspecError
from prometheus_client import Counter

from streaming.kafka.dead_letters import FUTURE, Rejected, check_clock, check_times, dead_letter, decode, forgotten_note
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import (
    HISTORY,
    Activity,
    Forgotten,
    Tick,
    action_code,
    decode_event,
    decode_forget,
    to_msgpack,
)
from streaming.state.user_history import EPOCH, Row, State, UserEvent, UserHistory
from streaming.topics import ACTIVITY

LARGEST: Final = 65_536  # bytes of an event; all of a dead letter is kept up to this
MOST: Final = 0.5  # of a history's size that one activity brings: its oldest new event keeps so much context
LOG: Final = "0"  # key of the log's only writer: it has one order

EVENTS: Final = Counter("premiere_events", "events taken into a history")
DOUBLES: Final = Counter("premiere_duplicates", "events dropped because their event_id was seen before")
LATE: Final = Counter("premiere_late_events", "events put before one of the same user that was there already")
FORGOTTEN: Final = Counter("premiere_forgotten", "requests to forget a user, each ends a history")


class ParsedEvents(NamedTuple):
    """A poll: its events by user, and what cannot be used. Both empty: nothing came for a while."""

    users: dict[str, list[UserEvent | Forgotten]]
    rejected: list[Outgoing]  # and notes of requests to forget, each behind the letters that it covers


class Update(NamedTuple):
    """What a poll changed for one user."""

    rows: list[Row]  # one per event
    records: list[Activity | Forgotten]  # mostly one activity; several where a poll brought very many events
    forgotten: list[Row]  # one per request to forget the user


def build(
    *,
    events: Source[list[Message]],
    activity: Sink[tuple[str, list[Outgoing]]],
    online: Sink[tuple[str, list[Row]]],
    offline: Sink[tuple[str, list[Row]]],
    forgotten: Sink[tuple[str, list[Row]]],
    dead_letters: Sink[tuple[str, list[Outgoing]]],
    history: int = HISTORY,
    future: timedelta = FUTURE,
    shards: int = 1,
    writers: int | None = None,
    clock: Callable[[], float] = time.time,
) -> Dataflow:
    """The flow. `events` yields polls (an empty one: silence). `offline` gets keys "0" to `shards` - 1, which are fixed
    for life, as `forgotten` does; `online` "0" to `writers` - 1 (as many unless told), which may change."""
    keys, online_keys = ([str(key) for key in range(count)] for count in (shards, writers or shards))
    flow = Dataflow("features")
    polls = op.input("user_events", flow, events)  # [Message]
    sorted_polls = op.map("sorted_polls", polls, lambda poll: sort(poll, future))  # Sorted
    rejected = op.flat_map("rejected", sorted_polls, lambda poll: [(LOG, poll.rejected)] if poll.rejected else [])
    by_user = op.flat_map("by_user", sorted_polls, lambda poll: poll.users.items())  # (user, [Arrival])
    updates = op.stateful_batch("histories", by_user, lambda state: _UserLogic(history, state))  # (user, Update)
    silence = op.filter("silence", sorted_polls, lambda poll: not (poll.users or poll.rejected))
    ticks = op.map("ticks", silence, lambda _: (LOG, [_tick(clock())]))  # ("0", [Outgoing])
    logged = op.flat_map_batch("logged", updates, _log)  # ("0", [Outgoing])
    newest = op.flat_map_batch("newest", updates, lambda batch: _newest(batch, online_keys))  # (shard, [Row])
    rows = op.flat_map_batch("rows", updates, lambda batch: _rows(batch, keys))  # (shard, [Row])
    marks = op.flat_map_batch("marks", updates, lambda batch: _marks(batch, keys))  # (shard, [Row])
    empty: list[tuple[str, list[Row]]] = [(key, []) for key in keys]
    nothing = op.flat_map("nothing", silence, lambda _: empty)  # an idle sink gets no snapshot, and publishes nothing
    op.output("activity", op.merge("log", logged, ticks), activity)
    op.output("online", newest, online)
    op.output("offline", op.merge("offline_rows", rows, nothing), offline)
    op.output("forgotten", op.merge("forgotten_rows", marks, nothing), forgotten)
    op.output("dead_letters", rejected, dead_letters)
    return flow


def sort(poll: list[Message], future: timedelta = FUTURE) -> ParsedEvents:
    """Validate a poll: its events by user, in the order they came, and a dead letter for each other message."""
    ahead = int(future.total_seconds() * 1000)
    users: dict[str, list[UserEvent | Forgotten]] = {}
    rejected = []
    for message in poll:
        try:
            arrival = _forget(message) or _arrival(message, ahead)
            users.setdefault(arrival.user, []).append(arrival)
            if isinstance(arrival, Forgotten):
                rejected.append(forgotten_note(message))
        except Rejected as reason:
            rejected.append(dead_letter(message, str(reason)))
    return ParsedEvents(users, rejected)


def _forget(message: Message) -> Forgotten | None:
    """The request to forget a user, where the message is one. Raises Rejected."""
    if message.value is None or b'"forget"' not in message.value or len(message.value) > LARGEST:
        return None
    try:
        asked = decode_forget(message.value)
    except (MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # an event may carry a field of that name, of whatever type
    if not asked.forget:
        return None
    _check_key(message, asked.user)
    check_clock(message.appended)
    return Forgotten(user=asked.user, partition=message.partition, offset=message.offset, appended=message.appended)


def _check_key(message: Message, user: str) -> None:
    if message.key != user.encode():
        raise Rejected("key: the message's key is not its user, so the user's events would not stay in one partition")


def _arrival(message: Message, ahead: int) -> UserEvent:
    """A valid event. Raises Rejected."""
    event = decode(decode_event, message, LARGEST)
    _check_key(message, event.user)
    try:
        action = action_code(event)
    except KeyError:
        raise Rejected(f"unknown action: {event.action!r}") from None
    check_times(event.ts, message.appended, ahead)
    where = message.partition, message.offset, message.appended
    return UserEvent(event.user, event.title, event.ts, action, event.event_id, *where)


class _UserLogic(StatefulBatchLogic[list[UserEvent | Forgotten], Update, State]):
    """One user's history in the engine's hands."""

    __slots__ = ("history", "most", "size")

    def __init__(self, size: int, state: State | None) -> None:
        self.size, self.history = size, UserHistory(size, state)
        self.most = max(1, int(size * MOST))

    def on_batch(self, values: list[list[UserEvent | Forgotten]]) -> tuple[list[Update], bool]:
        """Take in the user's events of one poll, or of several at once. A user who is forgotten leaves no state."""
        arrivals = values[0] if len(values) == 1 else list(chain.from_iterable(values))
        update = Update([], [], [])
        events: list[UserEvent] = []
        for arrival in arrivals:
            if isinstance(arrival, Forgotten):
                self._take(events, update)
                self._forget(arrival, update)
                events = []
            else:
                events.append(arrival)
        self._take(events, update)
        _count(update.rows, len(arrivals) - len(update.forgotten))
        return [update] if update.records else [], self.history.count == 0

    def _take(self, events: list[UserEvent], update: Update) -> None:
        for start in range(0, len(events), self.most):
            rows = [row for event in events[start : start + self.most] if (row := self.history.apply(event))]
            if rows:
                update.rows.extend(rows)
                update.records.append(self.history.activity(events[0].user))

    def _forget(self, asked: Forgotten, update: Update) -> None:
        self.history = UserHistory(self.size)
        update.records.append(asked)
        update.forgotten.append(
            {
                "user_id": asked.user,
                "partition": asked.partition,
                "offset": asked.offset,
                "appended": EPOCH + timedelta(milliseconds=asked.appended),
            }
        )
        FORGOTTEN.inc()

    def snapshot(self) -> State:
        """The history in plain values."""
        return self.history.snapshot()


def _count(rows: list[Row], arrived: int) -> None:
    EVENTS.inc(len(rows))
    if doubles := arrived - len(rows):
        DOUBLES.inc(doubles)
    if late := sum(row["event_ms"] < row["last_event_ms"] for row in rows):
        LATE.inc(late)


def _tick(seconds: float) -> Outgoing:
    return Outgoing(ACTIVITY, None, to_msgpack(Tick(ts=int(seconds * 1000))))


def _log(batch: list[tuple[str, Update]]) -> list[tuple[str, list[Outgoing]]]:
    """Every activity of a batch, for the log's one writer."""
    return [
        (
            LOG,
            [Outgoing(ACTIVITY, user.encode(), to_msgpack(one)) for user, update in batch for one in update.records],
        )
    ]


def _newest(batch: list[tuple[str, Update]], keys: list[str]) -> list[tuple[str, list[Row]]]:
    """The newest row of each user, by shard; a request to forget the user stays in its place before it."""
    newest: list[Row] = []
    for _, update in batch:
        newest += update.forgotten[-1:]
        since = update.forgotten[-1]["offset"] if update.forgotten else -1
        newest += [row for row in update.rows[-1:] if row["offset"] > since]
    return _by_shard(newest, keys)


def _marks(batch: list[tuple[str, Update]], keys: list[str]) -> list[tuple[str, list[Row]]]:
    """Requests to forget, by shard. Nothing is data too: it lets the sink publish what it holds."""
    marks = _by_shard([mark for _, update in batch for mark in update.forgotten], keys)
    return marks or [(key, []) for key in keys]


def _rows(batch: list[tuple[str, Update]], keys: list[str]) -> list[tuple[str, list[Row]]]:
    """Every row, by shard."""
    return _by_shard([row for _, update in batch for row in update.rows], keys)


def _by_shard(rows: list[Row], keys: list[str]) -> list[tuple[str, list[Row]]]:
    """Split rows by the source's partitions, so that a user's rows stay together."""
    if len(keys) == 1:
        return [(keys[0], rows)]
    shards: dict[str, list[Row]] = {}
    for row in rows:
        shards.setdefault(keys[row["partition"] % len(keys)], []).append(row)
    return list(shards.items())
