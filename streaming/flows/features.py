"""Flow `features`: turns user events into feature rows and into activity records for the learner log.

user-events -> validated, deduplicated and merged into the user's history -> Feast (online the newest row, offline one
row per event) and the topic `activity`. There is one activity record per user and poll, or several if the poll has more
than half a history of the user's events. A poll returns the events that have arrived, so a record holds many events
under load and one otherwise. The rows do not depend on where polls were cut.

A request to erase a user comes from a topic of its own. It ends the history of the events up to its append time: see
`streaming/state/user_state.py`. It is written to the learner log and to the Parquet log of erasure requests, which
compaction applies to the offline log. The online row is deleted. Both topics have the same partitions, so all records
of a user come from one worker; which topic is read first makes no difference to what is kept.

Step ids are keys of the recovery store: renaming a step discards its state.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Final, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import Source
from bytewax.operators import KeyedStream, StatefulBatchLogic
from bytewax.outputs import Sink
from msgspec import structs

from streaming.flows.event_checks import EventChecks
from streaming.kafka.dead_letters import (
    MAX_FUTURE,
    InvalidRecord,
    LetterBudget,
    check_id,
    check_not_moved,
    check_record_time,
    dead_letter,
    decode,
)
from streaming.kafka.partitioner import PartitionRule
from streaming.kafka.sink import Outgoing
from streaming.kafka.source import Message
from streaming.records import (
    ACTIVITY_HISTORY,
    Activity,
    Tick,
    UserErasure,
    action_code,
    decode_erasure_request,
    decode_event,
    to_msgpack,
)
from streaming.state.expiry import Expiration, Expiry
from streaming.state.user_history import UserEvent, UserRow
from streaming.state.user_state import Lifetimes, SavedUser, Update, UserState
from streaming.stores.lost_rows import LostRows, Restore, add_restores
from streaming.topics import ACTIVITY, ERASURE_REQUESTS

MAX_EVENT_BYTES: Final = 65_536  # a dead letter can store all of such an event or request
DEFAULT_LIFETIMES: Final = Lifetimes()
SINGLE_WRITER: Final = "0"  # key of all records for the learner log: one writer keeps their order


UserItem = UserEvent | UserErasure | Expiration | Restore


class ParsedPoll(NamedTuple):
    """A parsed poll of one of the topics. Both fields are empty if no message arrived for a while."""

    users: dict[str, list[UserEvent | UserErasure]]  # by user, in the poll's order
    letters: list[Outgoing]  # dead letters


def build(
    *,
    events: Source[list[Message]],
    requests: Source[list[Message]],
    activity: Sink[tuple[str, list[Outgoing]]],
    online: Sink[tuple[str, list[UserRow]]],
    offline: Sink[tuple[str, list[UserRow]]],
    erasures: Sink[tuple[str, list[UserRow]]],
    dead_letters: Sink[tuple[str, list[Outgoing]]],
    history: int = ACTIVITY_HISTORY,
    max_future: timedelta = MAX_FUTURE,
    offline_shards: int = 1,
    online_shards: int | None = None,
    events_id: str = "",
    requests_id: str = "",
    partition_rule: PartitionRule | None = None,
    lifetimes: Lifetimes = DEFAULT_LIFETIMES,
    lost_rows: LostRows | None = None,
    clock: Callable[[], float] = time.time,
) -> Dataflow:
    """The flow.

    - events, requests: yield polls; an empty one of `events` means that no message arrived for a while
    - history: the number of a user's events that are kept; lifetimes: when the state of a user ends
    - max_future: how far an event's time may be ahead of its record time
    - offline_shards: `offline` and `erasures` get the keys "0" to `offline_shards` - 1; must never change
    - online_shards: `online` gets the keys "0" to `online_shards` - 1; may change; default: `offline_shards`
    - events_id, requests_id: identities of the topics, for the records of the learner log
    - lost_rows: tells that the online store has lost its rows
    """
    keys, online_keys = _keys(offline_shards), _keys(online_shards or offline_shards)
    flow, expiry = Dataflow("features"), Expiry(lifetimes.max_users)
    parsed_events, parsed = _parsed_polls(flow, events, requests, EventChecks(max_future, partition_rule), requests_id)
    by_user = op.flat_map("by_user", parsed, lambda poll: _by_user(poll, expiry, clock()))  # (user, [UserItem])
    by_user = add_restores(flow, by_user, lost_rows, expiry.keys)
    updates = op.stateful_batch("histories", by_user, lambda saved: _UserLogic(history, lifetimes, expiry, saved))
    silence = op.filter("silence", parsed_events, lambda poll: not (poll.users or poll.letters))
    ticks = op.map("ticks", silence, lambda _: (SINGLE_WRITER, [_tick(clock())]))  # ("0", [Outgoing])
    records = op.flat_map_batch("records", updates, lambda batch: _log_records(batch, events_id))  # ("0", [Outgoing])
    online_rows = op.flat_map_batch("online_rows", updates, lambda batch: _online_rows(batch, online_keys))
    rows = op.flat_map_batch("rows", updates, lambda batch: _rows(batch, keys))  # (shard, [UserRow]), as the one above
    erased = op.flat_map_batch("erased", updates, lambda batch: _erasures(batch, keys))  # (shard, [UserRow])
    empty_batches = _empty_batches("empty_batches", silence, keys)
    op.output("activity", op.merge("log", records, ticks), activity)
    retries = _empty_batches("online_retries", silence, online_keys)
    op.output("online", op.merge("online_batches", online_rows, retries), online)
    op.output("offline", op.merge("offline_rows", rows, empty_batches), offline)
    op.output("erasures", op.merge("erasure_rows", erased, empty_batches), erasures)
    op.output("dead_letters", op.flat_map("letters", parsed, partial(_letters, LetterBudget())), dead_letters)
    return flow


def _parsed_polls(
    flow: Dataflow,
    events: Source[list[Message]],
    requests: Source[list[Message]],
    checks: EventChecks,
    requests_id: str,
) -> tuple[Stream[ParsedPoll], Stream[ParsedPoll]]:
    """The polls of events, and those of events and requests."""
    polls, request_polls = op.input("user_events", flow, events), op.input("erasure_requests", flow, requests)
    parsed_events = op.map("parsed", polls, partial(parse_events, checks=checks))
    parsed_requests = op.map("parsed_requests", request_polls, lambda poll: parse_requests(poll, requests_id))
    return parsed_events, op.merge("parsed_polls", parsed_requests, parsed_events)


def _empty_batches(step_id: str, silence: Stream[ParsedPoll], keys: list[str]) -> KeyedStream[list[UserRow]]:
    """An empty batch for each key of a sink after a while without events.

    A Parquet sink publishes its files at a snapshot, and the engine takes none of a sink that gets no items. The online
    sink writes the rows that it held during an outage.
    """
    return op.flat_map(step_id, silence, lambda _: [(key, list[UserRow]()) for key in keys])


def _letters(budget: LetterBudget, poll: ParsedPoll) -> list[tuple[str, list[Outgoing]]]:
    letters = budget.take(poll.letters)
    return [(SINGLE_WRITER, letters)] if letters else []


def _by_user(poll: ParsedPoll, expiry: Expiry, seconds: float) -> list[tuple[str, list[UserItem]]]:
    """The poll's events and requests, and an expiration for each user whose state may end now."""
    newest = max((items[-1].appended for items in poll.users.values()), default=0)
    users: list[tuple[str, list[UserItem]]] = [(user, [*items]) for user, items in poll.users.items()]
    return users + [(user, [expiration]) for user, expiration in expiry.due(newest, int(seconds * 1000))]


def _keys(shards: int) -> list[str]:
    return [str(shard) for shard in range(shards)]


def parse_events(poll: list[Message], checks: EventChecks | None = None) -> ParsedPoll:
    """Validate a poll of `user-events`: its events by user, and a dead letter for each invalid message."""
    checks = checks or EventChecks()
    return _parse(poll, lambda message: _parse_event(message, checks))


def parse_requests(poll: list[Message], requests_id: str = "") -> ParsedPoll:
    """Validate a poll of `erasure-requests`, as `parse_events` does."""
    return _parse(poll, lambda message: _parse_request(message, requests_id))


def _parse(poll: list[Message], parse: Callable[[Message], UserEvent | UserErasure]) -> ParsedPoll:
    users: dict[str, list[UserEvent | UserErasure]] = {}
    letters = []
    for message in poll:
        try:
            item = parse(message)
            users.setdefault(item.user, []).append(item)
        except InvalidRecord as reason:
            letters.append(dead_letter(message, str(reason)))
    return ParsedPoll(users, letters)


def _parse_request(message: Message, requests_id: str) -> UserErasure:
    """The valid erasure request in a message. Raises InvalidRecord."""
    request = decode(decode_erasure_request, message, MAX_EVENT_BYTES)
    _check_user(message, request.user)
    check_record_time(message.appended)
    _, partition, offset, appended, *_ = message
    return UserErasure(user=request.user, partition=partition, offset=offset, appended=appended, source=requests_id)


def _check_user(message: Message, user: str) -> None:
    check_id("the user", user)
    if message.key != user.encode():
        raise InvalidRecord(
            "key: the record's key is not its user, so the user's records may lie in several partitions"
        )


def _parse_event(message: Message, checks: EventChecks) -> UserEvent:
    """The valid event in a message. Raises InvalidRecord."""
    check_not_moved(message, "erase", ERASURE_REQUESTS)
    event = decode(decode_event, message, MAX_EVENT_BYTES)
    _check_user(message, event.user)
    check_id("the title", event.title)
    try:
        action = action_code(event)
    except KeyError:
        raise InvalidRecord(f"unknown action: {event.action!r}") from None
    checks.check(event.ts, message)
    position = message.partition, message.offset, message.appended
    return UserEvent(event.user, event.title, event.ts, action, event.event_id, *position)


class _UserLogic(StatefulBatchLogic[list[UserItem], Update, SavedUser]):
    """Keeps one user's state in the engine."""

    __slots__ = ("expiry", "lifetimes", "state")

    def __init__(self, size: int, lifetimes: Lifetimes, expiry: Expiry, saved: SavedUser | None) -> None:
        self.state, self.lifetimes, self.expiry = UserState(size, saved), lifetimes, expiry
        if saved is not None:
            expiry.add(self.state.user, self.state.ends_at(lifetimes))

    def on_batch(self, values: list[list[UserItem]]) -> tuple[list[Update], bool]:
        """Apply the user's events and requests of one or several polls, and end the state if it is due."""
        items = values[0] if len(values) == 1 else list(chain.from_iterable(values))
        state, is_new = self.state, not self.state.user
        update = state.apply([item for item in items if isinstance(item, UserEvent | UserErasure)])
        if not state.user:
            return [], StatefulBatchLogic.DISCARD  # it has ended already
        ends_at, kept_until = state.ends_at(self.lifetimes), state.kept_until(self.lifetimes)
        if is_new:
            self.expiry.add(state.user, ends_at)
        updates, next_state = [update], StatefulBatchLogic.RETAIN
        for item in items:
            if isinstance(item, Restore):
                state.restore(item.since, update)
            elif isinstance(item, Expiration) and self.expiry.ends(state.user, ends_at, kept_until, item):
                next_state = StatefulBatchLogic.DISCARD
                break
        return updates if update.online else [], next_state

    def snapshot(self) -> SavedUser:
        """The state as plain values."""
        return self.state.snapshot()


def _tick(seconds: float) -> Outgoing:
    return Outgoing(ACTIVITY, None, to_msgpack(Tick(ts=int(seconds * 1000))))


def _log_records(batch: list[tuple[str, Update]], events_id: str) -> list[tuple[str, list[Outgoing]]]:
    """All records of a batch for the learner log."""
    records = [
        Outgoing(ACTIVITY, user.encode(), to_msgpack(_with_source(record, events_id)))
        for user, update in batch
        for record in update.records
    ]
    return [(SINGLE_WRITER, records)]


def _with_source(record: Activity | UserErasure, events_id: str) -> Activity | UserErasure:
    """A request already names its topic."""
    return structs.replace(record, source=events_id) if isinstance(record, Activity) else record


def _online_rows(batch: list[tuple[str, Update]], keys: list[str]) -> list[tuple[str, list[UserRow]]]:
    """The rows for the online store, by shard: a user's erasure request comes before the row of a new history."""
    return _by_shard([row for _, update in batch for row in update.online], keys)


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
