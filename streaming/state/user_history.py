"""A user's recent events in event-time order, and what each new one makes of them.

Pure: a history is a function of the user's events in the order of the log, never of how they were cut into batches. So
an entry is cut off only once nobody asks for it any more (`activity`), an event older than all of a full history is
still counted and still learned once, and the rows of the feature store show only the newest `SHOWN` entries. Compact,
because there is one per user: titles are interned, times and actions lie in arrays (17 bytes an entry), and the ids
of events seen lately are 8-byte hashes in one string of bytes.
"""

from array import array
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from sys import intern
from typing import Any, Final, NamedTuple

from model.actions import ACTIONS
from streaming.kafka.client import StreamError
from streaming.records import HISTORY, Activity, NewEvent

SHOWN: Final = 50  # entries of a history in a row of the feature store
IDS: Final = 256  # explicit event ids that a user's history remembers
_HASH: Final = 8  # bytes of an event id's hash
_FORMAT: Final = 1  # of a snapshot
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES: Final = {meaning.code: name for name, meaning in ACTIONS.items()}

Row = dict[str, Any]  # a row of the view `user_activity`
State = tuple[int, int, tuple[str, ...], bytes, bytes, bytes]  # format, count, titles, times, actions, ids


class UserEvent(NamedTuple):
    """A valid event of one user, and where it came from."""

    user: str
    title: str
    ts: int  # when it happened, ms
    action: int  # code of ACTIONS
    event_id: str | None
    partition: int  # of `user-events`
    offset: int
    appended: int  # Kafka record time, ms


class UserHistory:
    """The newest `size` events of a user, oldest first, and how many there were."""

    __slots__ = ("actions", "count", "ids", "new", "size", "times", "titles")

    def __init__(self, size: int = HISTORY, state: State | None = None) -> None:
        """A new history, or the one that `state` was taken from. Raises StreamError on an unknown format."""
        form, self.count, titles, times, actions, ids = state or (_FORMAT, 0, (), b"", b"", b"")
        if form != _FORMAT:
            raise StreamError(f"A history of format {form} was written by a newer version: run that one.")
        self.size = size
        self.titles = [intern(title) for title in titles]
        self.times = array("q", times)
        self.actions = bytearray(actions)
        self.ids = ids
        self.new: list[tuple[int, int, int, int]] = []  # index, partition, offset, appended

    def apply(self, arrival: UserEvent) -> Row | None:
        """Take in an event: the user's features after it, or None where its event id was seen before."""
        if arrival.event_id is not None and not self._remember(arrival.event_id):
            return None
        self.count += 1
        index = self._insert(arrival)
        self.new.append((index, arrival.partition, arrival.offset, arrival.appended))
        return self._row(arrival)

    def activity(self, user: str) -> Activity:
        """What is new since the last call, and the history around it; then cuts the history to its size.

        It carries at most `size` entries, or more where a new event lies further back: each is in it.
        """
        start = max(0, min(len(self.times) - self.size, *(new[0] for new in self.new)))
        activity = Activity(
            user=user,
            count=self.count,
            titles=self.titles[start:],
            times=self.times[start:].tolist(),
            actions=list(self.actions[start:]),
            new=[NewEvent(index - start, *where) for index, *where in self.new],
        )
        self.new.clear()
        self._cut()
        return activity

    def snapshot(self) -> State:
        """All of it in plain immutable values. Ask only after `activity`, when nothing is new."""
        assert not self.new
        return _FORMAT, self.count, tuple(self.titles), self.times.tobytes(), bytes(self.actions), self.ids

    def _remember(self, event_id: str) -> bool:
        """Note an event id: whether it was unknown."""
        digest = blake2b(event_id.encode(), digest_size=_HASH).digest()
        at = self.ids.find(digest)
        while at >= 0 and at % _HASH:  # found across two hashes
            at = self.ids.find(digest, at + 1)
        if at >= 0:
            return False
        self.ids = (self.ids + digest)[-IDS * _HASH :]
        return True

    def _insert(self, arrival: UserEvent) -> int:
        """Put an event at its place, after those of the same time: its index."""
        times = self.times
        if not times or times[-1] <= arrival.ts:
            times.append(arrival.ts)
            self.titles.append(intern(arrival.title))
            self.actions.append(arrival.action)
            return len(times) - 1
        index = bisect_right(times, arrival.ts)
        times.insert(index, arrival.ts)
        self.titles.insert(index, intern(arrival.title))
        self.actions.insert(index, arrival.action)
        self.new = [(at + (at >= index), partition, offset, when) for at, partition, offset, when in self.new]
        return index

    def _cut(self) -> None:
        if (excess := len(self.times) - self.size) > 0:
            del self.titles[:excess], self.times[:excess], self.actions[:excess]

    def _row(self, arrival: UserEvent) -> Row:
        """The features as they are now. Its time rises with each event, or the store would ignore the row."""
        back = -1 - min(SHOWN, self.size)
        newest = self.times[-1]
        return {
            "user_id": arrival.user,
            "event_timestamp": EPOCH + timedelta(microseconds=newest * 1000 + self.count),
            "created": EPOCH + timedelta(milliseconds=arrival.appended),  # of the record: a replay repeats it
            "event_count": self.count,
            "last_title": self.titles[-1],
            "last_action": _NAMES[self.actions[-1]],
            "last_event_ms": newest,
            "recent_titles": self.titles[:back:-1],
            "recent_actions": list(self.actions[:back:-1]),
            "recent_ms": self.times[:back:-1].tolist(),
            "title": arrival.title,
            "action": _NAMES[arrival.action],
            "event_ms": arrival.ts,
            "partition": arrival.partition,
            "offset": arrival.offset,
        }
