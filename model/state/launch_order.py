"""The new titles in the order of their launches, so that they are found without reading the whole catalog.

An entry is stale when its title is no longer new, was withdrawn or evicted, or launched again: the catalog then has
another launch sequence for the row. Stale entries are left out when a full order is replaced.

X entries, in the order of launches · V titles of the catalog
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

MINUTE_MS: Final = 60_000
MIN_EVIDENCE: Final = 1.0  # of a title that is no longer new
MIN_CAPACITY: Final = 1024


class LaunchOrder:
    """Rows of titles with the sequence and minute of each launch. It follows from the catalog's arrays."""

    def __init__(self, capacity: int = MIN_CAPACITY) -> None:
        self._row_X = np.zeros(capacity, np.int32)
        self._sequence_X = np.zeros(capacity, np.int64)
        self._minute_X = np.zeros(capacity, np.int64)
        self._size = 0

    @classmethod
    def of(
        cls, launch_sequence_V: NDArray[np.int64], launched_ms_V: NDArray[np.int64], candidate_V: NDArray[np.bool_]
    ) -> "LaunchOrder":
        """The order of the titles of `candidate_V`, with room for as many more."""
        row_X = np.flatnonzero(candidate_V)
        row_X = row_X[np.argsort(launch_sequence_V[row_X], kind="stable")]
        order = cls(max(MIN_CAPACITY, 2 * len(row_X)))
        order._size = len(row_X)
        order._row_X[: len(row_X)] = row_X
        order._sequence_X[: len(row_X)] = launch_sequence_V[row_X]
        order._minute_X[: len(row_X)] = np.maximum.accumulate(launched_ms_V[row_X] // MINUTE_MS)
        return order

    @property
    def is_full(self) -> bool:
        """Whether there is no room for a launch."""
        return self._size == len(self._row_X)

    @property
    def row_X(self) -> NDArray[np.int32]:
        """Row of each title."""
        return self._row_X[: self._size]

    @property
    def sequence_X(self) -> NDArray[np.int64]:
        """Sequence of each launch."""
        return self._sequence_X[: self._size]

    @property
    def minute_X(self) -> NDArray[np.int64]:
        """Minute of each launch; it never decreases."""
        return self._minute_X[: self._size]

    def append(self, row: int, sequence: int, launched_ms: int) -> None:
        """Add a launch, which must be the newest. There must be room."""
        x, minute = self._size, launched_ms // MINUTE_MS
        self._row_X[x], self._sequence_X[x] = row, sequence
        self._minute_X[x] = max(minute, int(self._minute_X[x - 1])) if x else minute
        self._size += 1
