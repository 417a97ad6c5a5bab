"""The events that the served version was not trained on, so that `publish` can count them at once.

A version is seconds old when it is served. `publish` counts the newer events in its counters, as the learner does, so
that a title's first events and the present popularity are in the next lists. The weights stay as they are. The next
version brings the learner's own counts, and the events after its position are counted in it.
"""

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from model.state.stream_state import UserUpdate
from streaming.records import Activity
from streaming.state.deduplicator import Deduplicator
from streaming.state.user_update import user_update

MAX_EVENTS: Final = 8_192  # that are kept; a version counts no event that lies this many offsets after its position
MAX_TAKEN: Final = 512  # counted at a time, so that the next list never waits long
MAX_ERASED: Final = 100_000  # newest erasures
MAX_HISTORY: Final = 32  # earlier events of a kept activity; pairs further apart are counted by the next version only
DEDUPLICATION_WINDOW: Final = 4_096  # offsets of a partition


class LiveEvents:
    """The newest events of the learner log, and those of them that the served version has not counted yet."""

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque(maxlen=MAX_EVENTS)
        self._uncounted: deque[_Kept] = deque(maxlen=MAX_EVENTS)
        self._erased: OrderedDict[str, int] = OrderedDict()  # user -> log offset of the erasure
        self._deduplicator = Deduplicator(DEDUPLICATION_WINDOW)
        self._end = 0  # the served version counts the events before this offset of the learner log

    @property
    def waiting(self) -> int:
        """Activities that are not counted yet."""
        return len(self._uncounted)

    def add(self, activity: Activity, offset: int) -> None:
        """An activity at this offset of the learner log. Events that were added before are left out."""
        is_new, source = self._deduplicator.is_new, activity.source
        new = [event for event in activity.new if is_new(event.partition, event.offset, source)]
        if not new:
            return
        kept = _Kept(offset, _shortened(user_update(activity, new)))
        self._kept.append(kept)
        self._uncounted.append(kept)

    def serve(self, position: int, counts: bool = True) -> None:
        """A version is served that was trained on the learner log before `position`.

        `counts`: whether it counts later events.
        """
        self._end = position + MAX_EVENTS if counts else position
        self._uncounted = deque((one for one in self._kept if one.offset >= position), MAX_EVENTS)

    def erase(self, user: str, offset: int) -> None:
        """Forget the events of a user that come before this offset of the learner log."""
        self._erased.pop(user, None)
        self._erased[user] = offset
        if len(self._erased) > MAX_ERASED:
            self._erased.popitem(last=False)

    def take(self) -> list[UserUpdate]:
        """The next events to count."""
        taken = [self._uncounted.popleft() for _ in range(min(MAX_TAKEN, len(self._uncounted)))]
        return [
            one.update for one in taken if one.offset < self._end and one.offset >= self._erased.get(one.update.user, 0)
        ]


class _Kept(NamedTuple):
    offset: int  # in the learner log
    update: UserUpdate


def _shortened(update: UserUpdate) -> UserUpdate:
    """The update without the events long before the new ones."""
    start = max(0, min(update.new) - MAX_HISTORY)
    return update._replace(
        titles=update.titles[start:],
        times=update.times[start:],
        actions=update.actions[start:],
        new=[index - start for index in update.new],
    )
