"""Events per title in several time windows that end now: the counts behind recent popularity.

W windows, shortest first · V titles
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

Window = deque[tuple[int, int]]  # (ts, row) of its events in the order of arrival; the windows share the tuples


class RecentCounts:
    """Counts the events of each title row in the last `spans_ms`. Times in ms.

    A full window drops its oldest event: it holds a busy month, or an event with a future time at its front.
    """

    def __init__(self, spans_ms: Sequence[int], max_events: int) -> None:
        assert list(spans_ms) == sorted(spans_ms), "the last window must hold the events of all others"
        self.spans_ms, self.max_events = tuple(spans_ms), max_events
        self._count_WV = np.zeros((len(self.spans_ms), 0))
        self._windows: list[Window] = [deque() for _ in self.spans_ms]

    def reserve(self, titles: int) -> None:
        """Make room for this number of title rows."""
        missing = titles - self._count_WV.shape[1]
        self._count_WV = np.pad(self._count_WV, ((0, 0), (0, max(0, missing))))

    def count(self, row: int, ts: int) -> None:
        """Count one event of the title in `row`."""
        event = ts, row
        for count_V, window, span_ms in zip(self._count_WV, self._windows, self.spans_ms, strict=True):
            while window and (window[0][0] < ts - span_ms or len(window) >= self.max_events):
                count_V[window.popleft()[1]] -= 1
            count_V[row] += 1
            window.append(event)

    def at(self, ts: int, titles: int) -> NDArray[np.float64]:
        """The counts of the first `titles` rows in the windows that end at `ts`, [W, V]. Changes no state."""
        count_WV = self._count_WV[:, :titles].copy()
        for count_V, window, span_ms in zip(count_WV, self._windows, self.spans_ms, strict=True):
            np.subtract.at(count_V, list(_expired(window, ts - span_ms)), 1)
        return count_WV

    def keep_rows(self, new_rows: Sequence[int]) -> None:
        """Renumber the title rows: `new_rows` by former row, -1 for a title whose events are dropped."""
        lengths = [sum(new_rows[row] >= 0 for _, row in window) for window in self._windows]
        self._fill([(ts, new_rows[row]) for ts, row in self._windows[-1] if new_rows[row] >= 0], lengths)

    def state_dict(self) -> dict[str, Any]:
        """The events of the longest window, and how many of the newest of them each window holds."""
        events = np.fromiter(chain.from_iterable(self._windows[-1]), np.int64).reshape(-1, 2)
        return {"events": events, "lengths": [len(window) for window in self._windows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned; there must be room for its rows (`reserve`)."""
        self._fill([(ts, row) for ts, row in np.asarray(state["events"]).tolist()], state["lengths"])

    def _fill(self, events: Sequence[tuple[int, int]], lengths: Sequence[int]) -> None:
        self._windows = [deque(events[len(events) - length :]) for length in lengths]
        self._count_WV[:] = 0
        for count_V, window in zip(self._count_WV, self._windows, strict=True):
            np.add.at(count_V, [row for _, row in window], 1)


def _expired(window: Window, before: int) -> Iterator[int]:
    """The rows of the events at the front of the window that are older than `before`."""
    return (row for _, row in takewhile(lambda event: event[0] < before, window))
