"""The new titles by the minute of their launch, so that the newest are found without reading the whole catalog.

Launches come from several partitions, so their times are not always in the order of the learner log. An entry is stale
if its title has MIN_EVIDENCE or more, or if the catalog has another launch sequence for the row: the title was then
withdrawn, evicted or launched again. Readers skip stale entries. When the order is full, it is computed again without
them. Evaluations call every title with fewer than 10 events new; here one event of an established user is enough.

X entries, by minute and then in the order of the log · V titles of the catalog
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MINUTE_MS: Final = 60_000
MIN_EVIDENCE: Final = 1.0  # a title with at least this much is not new
MIN_CAPACITY: Final = 1024


class LaunchOrder:
    """Rows of titles with the sequence and minute of each launch. A checkpoint
    does not contain it, because the catalog's arrays determine it."""

    def __init__(self, capacity: int = MIN_CAPACITY) -> None:
        self._row_X = np.zeros(capacity, np.int32)
        self._sequence_X = np.zeros(capacity, np.int64)
        self._minute_X = np.zeros(capacity, np.int64)
        self._size = 0
        self._is_sorted = True

    @classmethod
    def of(
        cls, launch_sequence_V: NDArray[np.int64], launched_ms_V: NDArray[np.int64], new_V: NDArray[np.bool_]
    ) -> "LaunchOrder":
        """The order of the titles of `new_V`, with room for as many more."""
        row_X = np.flatnonzero(new_V)
        minute_X = launched_ms_V[row_X] // MINUTE_MS
        by_minute_X = np.lexsort((launch_sequence_V[row_X], minute_X))
        row_X, minute_X = row_X[by_minute_X], minute_X[by_minute_X]
        order = cls(max(MIN_CAPACITY, 2 * len(row_X)))
        order._size = len(row_X)
        order._row_X[: len(row_X)] = row_X
        order._sequence_X[: len(row_X)] = launch_sequence_V[row_X]
        order._minute_X[: len(row_X)] = minute_X
        return order

    @property
    def is_full(self) -> bool:
        """Whether there is no room for a launch."""
        return self._size == len(self._row_X)

    def entries(self) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Row, launch sequence and minute of each entry."""
        size = self._size
        if not self._is_sorted:
            by_minute_X = np.argsort(self._minute_X[:size], kind="stable")
            self._row_X[:size] = self._row_X[by_minute_X]
            self._sequence_X[:size] = self._sequence_X[by_minute_X]
            self._minute_X[:size] = self._minute_X[by_minute_X]
            self._is_sorted = True
        return self._row_X[:size], self._sequence_X[:size], self._minute_X[:size]

    def append(self, row: int, sequence: int, launched_ms: int) -> None:
        """Add a launch with a higher sequence than all before. There must be room."""
        x, minute = self._size, launched_ms // MINUTE_MS
        self._row_X[x], self._sequence_X[x], self._minute_X[x] = row, sequence, minute
        self._is_sorted = self._is_sorted and (not x or minute >= self._minute_X[x - 1])
        self._size += 1
