"""Sparse title-to-title counts with a fixed number of neighbors per title.

A dense matrix of title pairs takes 4 TB for a million titles. A bounded list of neighbors keeps nearly all of the
weight. A full list is updated as in Misra and Gries (1982): each new pair reduces the weakest entry until that entry
is replaced. A frequent new pair therefore enters the list, and a single event does not displace a frequent pair.

V titles · K neighbors of a title
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

NO_NEIGHBOR: Final = -1


class PairCounts(NamedTuple):
    """The counts as arrays, for use in compiled code."""

    to_VK: NDArray[np.int32]  # rows of the neighbors, then NO_NEIGHBOR
    weight_VK: NDArray[np.float32]  # count of each pair
    total_V: NDArray[np.float32]  # sum of all weights ever added to the title


def empty_pair_counts(titles: int, neighbors: int) -> PairCounts:
    """Return counters without pairs, for `titles` rows with at most `neighbors` neighbors each."""
    to_VK = np.full((titles, neighbors), NO_NEIGHBOR, np.int32)
    return PairCounts(to_VK, np.zeros((titles, neighbors), np.float32), np.zeros(titles, np.float32))


@njit(cache=True)
def add_pair(pairs: PairCounts, a: int, b: int, weight: float) -> None:
    """Count title `b` as a neighbor of title `a`."""
    to_K, weight_K = pairs.to_VK[a], pairs.weight_VK[a]
    pairs.total_V[a] += weight
    weakest = 0
    for k in range(to_K.size):
        if to_K[k] == b:
            weight_K[k] += weight
            return
        if to_K[k] == NO_NEIGHBOR:
            to_K[k], weight_K[k] = b, weight
            return
        if weight_K[k] < weight_K[weakest]:
            weakest = k
    weight_K[weakest] -= weight
    if weight_K[weakest] <= 0:
        to_K[weakest], weight_K[weakest] = b, weight


def evict_rows(pairs: PairCounts, rows: NDArray[np.int64]) -> None:
    """Clear the evicted titles' neighbors and remove these titles from all other lists."""
    evicted = np.zeros(len(pairs.to_VK) + 1, bool)  # index NO_NEIGHBOR reads the last entry, which is False
    evicted[rows] = True
    pairs.to_VK[rows], pairs.weight_VK[rows], pairs.total_V[rows] = NO_NEIGHBOR, 0, 0
    for a in np.flatnonzero(evicted[pairs.to_VK].any(axis=1)):
        kept = ~evicted[pairs.to_VK[a]]
        n = int(kept.sum())  # entries stay contiguous, because `add_pair` stops at the first NO_NEIGHBOR
        pairs.to_VK[a, :n], pairs.weight_VK[a, :n] = pairs.to_VK[a][kept], pairs.weight_VK[a][kept]
        pairs.to_VK[a, n:], pairs.weight_VK[a, n:] = NO_NEIGHBOR, 0
