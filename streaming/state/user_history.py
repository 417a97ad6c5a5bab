"""A user's recent events in event-time order, and the feature row and activity record that each new event produces.

A history is a pure function of the user's events in partition order: how they were cut into batches changes nothing. So
three rules hold. An entry is dropped only after the method `activity` has returned it. An event older than a full
history is still counted and learned once. Feature rows contain only the newest `RECENT_EVENTS` entries.

There is one history per user, so it is compact: equal titles are one object, times and actions are arrays (33 bytes
per entry), and the ids of recent events are 8-byte hashes in one byte string. The append times and offsets of the
events serve an erasure: it removes the events up to the append time of its request, also if later ones have been added
already. The later events that are still in the history get new feature rows, computed without the erased events.
"""

from array import array
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from features.limits import RECENT_EVENTS
from model.actions import ACTIONS
from model.state.id_table import shared_id
from streaming.records import ACTIVITY_HISTORY, Activity, NewEvent

MAX_EVENT_IDS: Final = 256  # event ids that a history remembers to drop duplicates
UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HASH_BYTES: Final = 8  # of an event id's hash
_ACTION_NAMES: Final = {meaning.code: name for name, meaning in ACTIONS.items()}

UserRow = dict[str, Any]  # a row of the view `user_activity`
# Count, oldest append time, titles, times, actions, append times, offsets, hashes of event ids, partition.
HistoryState = tuple[int, int, tuple[str, ...], bytes, bytes, bytes, bytes, bytes, int]
_EMPTY: Final[HistoryState] = (0, 2**62, (), b"", b"", b"", b"", b"", 0)


class UserEvent(NamedTuple):
    """A valid event of one user, with the position of its record.

    `streaming.records.Event` is the wire format, which has neither the position nor the action's code.
    """

    user: str
    title: str
    ts: int  # event time, ms
    action: int  # code of ACTIONS
    event_id: str | None
    partition: int  # of `user-events`
    offset: int
    appended: int  # Kafka record time, ms


class UserHistory:
    """The newest `size` events of a user, oldest first; the count and oldest append time (ms) of all events so far."""

    __slots__ = (
        "actions",
        "appended",
        "count",
        "ids",
        "new",
        "offsets",
        "oldest",
        "partition",
        "size",
        "times",
        "titles",
    )

    def __init__(self, size: int = ACTIVITY_HISTORY, state: HistoryState | None = None) -> None:
        """An empty history, or the one of a snapshot."""
        state = state or _EMPTY
        self.count, self.oldest, titles, times, actions, appended, offsets, self.ids, self.partition = state
        self.size = size
        self.titles = [shared_id(title) for title in titles]
        self.times = array("q", times)
        self.actions = bytearray(actions)
        self.appended = array("q", appended)
        self.offsets = array("q", offsets)
        self.new: list[tuple[int, int, int, int]] = []  # index, partition, offset, appended

    def apply(self, event: UserEvent) -> UserRow | None:
        """Add an event. Returns the user's features after it, or None for a duplicate event id."""
        if event.event_id is not None and not self._is_new_id(event.event_id):
            return None
        self._add(event)
        return self._feature_row(event)

    def activity(self, user: str) -> Activity:
        """The history with the events added since the last call; afterwards the history is trimmed to its size.

        The record has at most `size` entries, or more if a new event lies further back: it contains all new events.
        """
        start = max(0, min(len(self.times) - self.size, *(new[0] for new in self.new)))
        activity = Activity(
            user=user,
            count=self.count,
            titles=self.titles[start:],
            times=self.times[start:].tolist(),
            actions=list(self.actions[start:]),
            new=[NewEvent(index - start, *position) for index, *position in self.new],
        )
        self.new.clear()
        self._trim()
        return activity

    def erase(self, user: str, until: int) -> tuple["UserHistory", list[UserRow]]:
        """The history without the events appended up to `until`, and the features after each of the others.

        The others count as the first ones of a new user. The next activity marks the newest of them as new; readers
        recognize it as a duplicate.
        """
        entries = zip(self.appended, self.offsets, self.titles, self.times, self.actions, strict=True)
        history, rows = UserHistory(self.size), list[UserRow]()
        for appended, offset, title, ts, action in sorted(entry for entry in entries if entry[0] > until):
            event = UserEvent(user, title, ts, action, None, self.partition, offset, appended)
            history._add(event)
            rows.append(history._feature_row(event))
        history.new = history.new[-1:]
        return history, rows

    def present_row(self, user: str) -> UserRow:
        """The present features, as they are in the online store."""
        appended, offset = max(zip(self.appended, self.offsets, strict=True))
        newest = self.titles[-1], self.times[-1], self.actions[-1]
        return self._feature_row(UserEvent(user, *newest, None, self.partition, offset, appended))

    def snapshot(self) -> HistoryState:
        """The history as immutable values. Call it only after `activity`, so that nothing is new."""
        assert not self.new
        entries = self.times.tobytes(), bytes(self.actions), self.appended.tobytes(), self.offsets.tobytes()
        return self.count, self.oldest, tuple(self.titles), *entries, self.ids, self.partition

    def _add(self, event: UserEvent) -> None:
        self.count += 1
        self.oldest = min(self.oldest, event.appended)
        self.partition = event.partition
        index = self._insert(event)
        self.new.append((index, event.partition, event.offset, event.appended))

    def _is_new_id(self, event_id: str) -> bool:
        """Whether an event id was not seen before; remembers it."""
        digest = blake2b(event_id.encode(), digest_size=_HASH_BYTES).digest()
        at = self.ids.find(digest)
        while at >= 0 and at % _HASH_BYTES:  # a match across two hashes
            at = self.ids.find(digest, at + 1)
        if at >= 0:
            return False
        self.ids = (self.ids + digest)[-MAX_EVENT_IDS * _HASH_BYTES :]
        return True

    def _insert(self, event: UserEvent) -> int:
        """Insert an event by its time, after events of the same time, and return its index."""
        times = self.times
        if not times or times[-1] <= event.ts:
            times.append(event.ts)
            self.titles.append(shared_id(event.title))
            self.actions.append(event.action)
            self.appended.append(event.appended)
            self.offsets.append(event.offset)
            return len(times) - 1
        index = bisect_right(times, event.ts)
        times.insert(index, event.ts)
        self.titles.insert(index, shared_id(event.title))
        self.actions.insert(index, event.action)
        self.appended.insert(index, event.appended)
        self.offsets.insert(index, event.offset)
        self.new = [(at + (at >= index), partition, offset, appended) for at, partition, offset, appended in self.new]
        return index

    def _trim(self) -> None:
        if (excess := len(self.times) - self.size) > 0:
            for entries in (self.titles, self.times, self.actions, self.appended, self.offsets):
                del entries[:excess]

    def _feature_row(self, event: UserEvent) -> UserRow:
        """The features after the event. The timestamp rises with each event, otherwise Feast would ignore the row."""
        stop = -1 - min(RECENT_EVENTS, self.size)
        newest = self.times[-1]
        return {
            "user_id": event.user,
            "event_timestamp": UNIX_EPOCH + timedelta(microseconds=newest * 1000 + self.count),
            "created": UNIX_EPOCH + timedelta(milliseconds=event.appended),  # the record's time, equal when reprocessed
            "event_count": self.count,
            "last_title": self.titles[-1],
            "last_action": _ACTION_NAMES[self.actions[-1]],
            "last_event_ms": newest,
            "recent_titles": self.titles[:stop:-1],
            "recent_actions": list(self.actions[:stop:-1]),
            "recent_ms": self.times[:stop:-1].tolist(),
            "title": event.title,
            "action": _ACTION_NAMES[event.action],
            "event_ms": event.ts,
            "partition": event.partition,
            "offset": event.offset,
            "oldest_created": UNIX_EPOCH + timedelta(milliseconds=self.oldest),
        }
