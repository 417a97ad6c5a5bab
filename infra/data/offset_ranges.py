"""A set of offsets of one partition, in the memory of its gaps: offsets of one producer are mostly consecutive."""

from bisect import bisect_right


class OffsetRanges:
    """Offsets in ascending order, as ranges."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # exclusive

    def add(self, offset: int) -> None:
        """Add an offset after all others."""
        if self._ends and self._ends[-1] == offset:
            self._ends[-1] = offset + 1
        else:
            self._starts.append(offset)
            self._ends.append(offset + 1)

    def __contains__(self, offset: int) -> bool:
        index = bisect_right(self._starts, offset) - 1
        return index >= 0 and offset < self._ends[index]

    def count_from(self, first: int) -> int:
        """How many of the offsets are at or after `first`."""
        return sum(max(0, end - max(start, first)) for start, end in zip(self._starts, self._ends, strict=True))
