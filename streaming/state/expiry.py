"""Ends keyed states: after a time without records, or earlier if there are too many.

The engine keeps the state of each key for ever. Its timers cost time in proportion to the number of keys at each poll,
and it cannot list its keys. So this object notes each key once, under the day on which its state may end. A step that
sees every poll takes the keys that are due and sends each an `Expiration`. The state then ends, or its key is noted
again under a later day, because records have arrived meanwhile. Each process notes the keys that it holds.

Time is the append time of records, but never ahead of this host's clock: one record with a wrong time, or a wrong
clock, ends no state.
"""

from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge

DAY_MS: Final = 86_400_000
MAX_DUE: Final = 200  # keys per poll, so that the end of a day delays no record for long
FOREVER: Final = 2**62  # end of a state that does not end, ms

STATES: Final = Gauge("premiere_keyed_states", "Users or titles whose state the flow holds.")
EXPIRED: Final = Counter("premiere_expired_states_total", "States of users or titles that ended.", ["cause"])


class Expiration(NamedTuple):
    """Asks a state to end if it may."""

    day: int  # under which its key was noted
    now: int  # ms


class Expiry:
    """The keys by the day on which their state may end, at most about `max_states` of them."""

    def __init__(self, max_states: int) -> None:
        self.max_states, self.count = max_states, 0
        self.newest = 0  # append time of the newest record, ms
        self._days: dict[int, list[str]] = {}
        self._taken: set[str] = set()  # keys that are due, until their state ends or they are noted again

    def add(self, key: str, ends_at: int) -> None:
        """Note a key that is not noted; its state may end at `ends_at` (ms)."""
        self._days.setdefault(ends_at // DAY_MS, []).append(key)
        self._taken.discard(key)
        self.count += 1
        STATES.set(self.count)

    def keys(self) -> list[str]:
        """The keys of all states."""
        return [*self._taken, *(key for keys in self._days.values() for key in keys)]

    def due(self, newest: int, clock_ms: int) -> list[tuple[str, Expiration]]:
        """Take the keys whose state may end now; `newest` is the append time of the newest record of a poll."""
        self.newest = max(self.newest, newest)
        now, due = min(self.newest, clock_ms), list[tuple[str, Expiration]]()
        while self._days and len(due) < MAX_DUE:
            day = min(self._days)
            if day >= now // DAY_MS and self.count <= self.max_states:
                break
            key = self._days[day].pop()
            self._taken.add(key)
            due.append((key, Expiration(day, now)))
            self.count -= 1
            if not self._days[day]:
                del self._days[day]
        return due

    def ends(self, key: str, ends_at: int, keep_until: int, expiration: Expiration) -> bool:
        """Whether the state ends; if not, its key is noted again.

        It ends at `ends_at`, or because there are too many states, but not before `keep_until`.
        """
        is_over = ends_at <= expiration.now
        if not is_over and (ends_at // DAY_MS > expiration.day or keep_until > expiration.now):
            self.add(key, ends_at)
            return False
        self._taken.discard(key)
        EXPIRED.labels("time" if is_over else "limit").inc()
        STATES.set(self.count)
        return True
