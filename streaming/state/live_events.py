"""The events that the served version was not trained on, so that `publish` can count them at once.

A version is seconds old when it is served. `publish` counts the newer events in its counters, as the learner does, so
that a title's first events and the present popularity are in the next lists. The weights stay as they are. The next
version brings the learner's own counts, and the events after its position are counted in it.
"""

from collections import deque
from typing import Final, NamedTuple

from model.state.stream_state import UserUpdate
from streaming.records import Activity
from streaming.state.deduplicator import Deduplicator
from streaming.state.user_update import user_update

MAX_EVENTS: Final = 8_192  # activities that are kept; a version counts none further behind its position than this
MAX_HISTORY: Final = 32  # earlier events of a kept activity: enough for the counters
DEDUPLICATION_WINDOW: Final = 4_096  # offsets of a partition


class LiveEvents:
    """The newest events of the learner log, and those of them that the served version has not counted yet."""

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque(maxlen=MAX_EVENTS)
        self._uncounted: deque[_Kept] = deque(maxlen=MAX_EVENTS)
        self._deduplicator = Deduplicator(DEDUPLICATION_WINDOW)
        self._end = 0  # the served version counts the events before this offset of the learner log

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
        """A version is served that was trained on the learner log before `position`, and `counts` later events."""
        self._end = position + MAX_EVENTS if counts else position
        self._uncounted = deque((one for one in self._kept if one.offset >= position), MAX_EVENTS)

    def erase(self, user: str) -> None:
        """Forget a user's events."""
        self._kept = deque((one for one in self._kept if one.update.user != user), MAX_EVENTS)
        self._uncounted = deque((one for one in self._uncounted if one.update.user != user), MAX_EVENTS)

    def take(self) -> list[UserUpdate]:
        """The events to count now."""
        taken = [one.update for one in self._uncounted if one.offset < self._end]
        self._uncounted.clear()
        return taken


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
