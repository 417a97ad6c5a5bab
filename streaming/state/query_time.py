"""The query time of a list: the present, in the event time of the stream.

A stream of old events, such as a dataset that is produced again, would look like years of inactivity if lists were
computed for the wall clock. So the present is the wall clock minus the median age of recent events, where the age of an
event is its append time minus its event time.

A user who has just acted has a clock of their own: their newest event plus the time since it was appended. In a live
stream both clocks agree. In a dataset that is produced in minutes they do not: users who acted weeks apart run side by
side, and the present would put a user who is in the middle of a session weeks behind their last event. The own clock is
not used for a late event (a client that was offline), whose user acts in the present.
"""

from collections import deque
from statistics import median_low
from typing import Final

from streaming.records import Activity
from streaming.state.user_cache import CachedUser

EVENT_AGE_SAMPLES: Final = 65  # events whose median age sets the present; odd, so that the median is one of them
ACTIVE_MS: Final = 60_000  # since the append time of a user's newest event, in which the user's own clock is used
LATE: Final = 2  # an event is late if its age is more than this multiple of the median age


class QueryTime:
    """Estimates the present from the newest events."""

    def __init__(self) -> None:
        self._ages: deque[int] = deque(maxlen=EVENT_AGE_SAMPLES)  # of recent events, ms

    def add(self, activity: Activity) -> None:
        """Take the age of an activity's newest event."""
        for event in activity.new[-1:]:
            self._ages.append(event.appended - activity.times[event.index])

    def of(self, user: CachedUser, now: int) -> int:
        """The query time, in ms of event time, of a list that is computed for the user at `now` (wall clock, ms)."""
        age = median_low(self._ages) if self._ages else 0
        if len(user.times) and now - user.appended <= ACTIVE_MS:
            own_age = user.appended - user.times[-1]
            age = own_age if own_age <= LATE * age else age
        return now - age
