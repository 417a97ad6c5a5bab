"""A cache in two segments, so that one-time users never evict proven entries.

An entry starts in the segment on probation and moves to the proven one when the caller says so. The least recently used
entry on probation is evicted first. The proven segment is limited, so that there is always room for newcomers: beyond
the limit, its least recently used entry goes back on probation. This is segmented LRU (Karedla et al. 1994) with a
condition of the caller's in place of the second hit, because an attacker can hit twice as easily as once.

All operations take constant time. Deleting the first key of a plain dict does not: it walks over all deleted ones.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Final, Generic, TypeVar

V = TypeVar("V")

PROVEN_EVENTS: Final = 5  # of a user; a user with fewer is new, as in the metrics
MIN_PROBATION: Final = 10  # at least 1/10 of the capacity is left to entries on probation


class SegmentedCache(Generic[V]):
    """Values by key. The cache says which entry to evict; the caller evicts it, at `capacity` or by another bound."""

    def __init__(self, capacity: int, max_proven: int | None = None) -> None:
        self.capacity = capacity
        self.max_proven = capacity - max(1, capacity // MIN_PROBATION) if max_proven is None else max_proven
        self.probation: OrderedDict[str, V] = OrderedDict()  # least recently used first
        self.proven: OrderedDict[str, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self.probation) + len(self.proven)

    def __iter__(self) -> Iterator[str]:
        """All keys in the order of eviction."""
        return chain(self.probation, self.proven)

    def __reversed__(self) -> Iterator[str]:
        """All keys, the last to be evicted first."""
        return chain(reversed(self.proven), reversed(self.probation))

    def __contains__(self, key: str) -> bool:
        return key in self.probation or key in self.proven

    def get(self, key: str) -> V | None:
        """The value, or None; it does not count as a use of the entry."""
        return self.proven[key] if key in self.proven else self.probation.get(key)

    def values(self) -> Iterator[V]:
        """All values in the order of eviction."""
        return chain(self.probation.values(), self.proven.values())

    def items(self) -> Iterator[tuple[str, V]]:
        """All entries in the order of eviction."""
        return chain(self.probation.items(), self.proven.items())

    def put(self, key: str, value: V, is_proven: bool) -> None:
        """Store the value as the most recently used one of its segment."""
        self.pop(key)
        (self.proven if is_proven else self.probation)[key] = value
        if len(self.proven) > self.max_proven:
            demoted, value = self.proven.popitem(last=False)
            self.probation[demoted] = value

    def pop(self, key: str) -> V | None:
        """Remove an entry; None if there is none."""
        return self.proven.pop(key) if key in self.proven else self.probation.pop(key, None)

    def pop_oldest(self) -> tuple[str, V]:
        """Remove the entry that is evicted next."""
        return (self.probation or self.proven).popitem(last=False)
