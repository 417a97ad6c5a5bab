"""Measures the rate of new events in log time."""

from collections import deque
from collections.abc import Sequence
from typing import Final

RATE_WINDOW_MS: Final = 10_000  # of log time over which the rate is measured
MIN_RATE_SPAN_MS: Final = 1_000  # shortest time that a rate is measured over


class EventRate:
    """The numbers of new events by log time (ms) within the last `RATE_WINDOW_MS`."""

    def __init__(self, recent: Sequence[Sequence[int]] = ()) -> None:
        """No events, or those that `state` returned."""
        self.recent: deque[tuple[int, int]] = deque((at, n) for at, n in recent)

    def add(self, now: int, events: int) -> None:
        """Add new events at log time `now`, which never falls."""
        before = 0
        if self.recent and self.recent[-1][0] == now:  # one entry per millisecond: if time stands still,
            _, before = self.recent.pop()  # the memory must not grow
        self.recent.append((now, before + events))
        while now - self.recent[0][0] > RATE_WINDOW_MS:
            self.recent.popleft()

    def per_second(self) -> float:
        """New events per second of log time."""
        span = MIN_RATE_SPAN_MS
        if self.recent:
            span = max(self.recent[-1][0] - self.recent[0][0], MIN_RATE_SPAN_MS)
        return 1000 * sum(n for _, n in self.recent) / span

    def state(self) -> list[list[int]]:
        return [list(pair) for pair in self.recent]
