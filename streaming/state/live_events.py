"""The events that the served version was not trained on, so that `publish` can count them at once.

A version is seconds old when it is served. Until the next one, `publish` adds newer events to its counters, as the
learner does, so that a title's first events and the present popularity are in the next lists. The weights stay. The
counters of the next version have the events before its position in the log, and those after it are added again.
"""

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from model.state.stream_state import UserUpdate
from streaming.records import Activity
from streaming.state.deduplicator import Deduplicator
from streaming.state.user_update import user_update

MAX_ACTIVITIES: Final = 8_192  # that are kept; also the offsets after a version's position whose events it counts
MAX_TAKEN: Final = 512  # counted at a time, so that the next list never waits long
MAX_ERASED: Final = 100_000  # newest erasures
MAX_HISTORY: Final = 32  # earlier events of a kept activity; only the next version counts co-occurrence further back
DEDUPLICATION_WINDOW: Final = 4_096  # offsets of a partition


class LiveEvents:
    """The newest events of the learner log, and those of them that the served version has not counted yet."""

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque(maxlen=MAX_ACTIVITIES)
        self._uncounted: deque[_Kept] = deque(maxlen=MAX_ACTIVITIES)
        self._erased: OrderedDict[str, int] = OrderedDict()  # user -> log offset of the erasure
        self._deduplicator = Deduplicator(DEDUPLICATION_WINDOW)
        self._end = 0  # the served version counts the events before this offset of the learner log

    @property
    def uncounted(self) -> int:
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

    def serve(self, position: int, counts_later: bool = True) -> None:
        """A version is served that was trained on the learner log before `position`.

        `counts_later`: whether it counts the events after it.
        """
        self._end = position + MAX_ACTIVITIES if counts_later else position
        self._uncounted = deque((one for one in self._kept if one.offset >= position), MAX_ACTIVITIES)

    def erase(self, user: str, offset: int) -> None:
        """Drop the events of a user that come before this offset of the learner log."""
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
