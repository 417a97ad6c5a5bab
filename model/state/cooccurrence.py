"""Sparse title-to-title counts, bounded: each title keeps its strongest few neighbours.

A dense title-by-title matrix is 4 TB at a million titles; a row of `slots` neighbours is bounded and holds nearly all
of the weight. A full row makes room as Misra and Gries (1982) do: the weakest entry pays for each newcomer until it is
gone, so a pair that keeps coming gets in and one that came once does not push out a pair that came often.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

EMPTY = -1


class Pairs(NamedTuple):
    """`to_VK[a, k]` is a neighbour of title row `a`, `weight_VK[a, k]` its count; `total_V[a]` all that was ever
    added."""

    to_VK: NDArray[np.int32]
    weight_VK: NDArray[np.float32]
    total_V: NDArray[np.float32]


def empty_pairs(titles: int, slots: int) -> Pairs:
    """No pairs yet, for `titles` rows of `slots` neighbours."""
    to_VK = np.full((titles, slots), EMPTY, np.int32)
    return Pairs(to_VK, np.zeros((titles, slots), np.float32), np.zeros(titles, np.float32))


@njit(cache=True)
def add_pair(pairs: Pairs, a: int, b: int, weight: float) -> None:
    """Count `b` as a neighbour of `a`."""
    to, weights = pairs.to_VK[a], pairs.weight_VK[a]
    pairs.total_V[a] += weight
    weakest = 0
    for k in range(to.size):
        if to[k] == b:
            weights[k] += weight
            return
        if to[k] == EMPTY:
            to[k], weights[k] = b, weight
            return
        if weights[k] < weights[weakest]:
            weakest = k
    weights[weakest] -= weight
    if weights[weakest] <= 0:
        to[weakest], weights[weakest] = b, weight


def evict_rows(pairs: Pairs, rows: NDArray[np.int64]) -> None:
    """Clear evicted titles' own neighbours and every mention of them."""
    gone = np.zeros(len(pairs.to_VK) + 1, bool)  # the last entry answers for EMPTY
    gone[rows] = True
    pairs.to_VK[rows], pairs.weight_VK[rows], pairs.total_V[rows] = EMPTY, 0, 0
    for a in np.flatnonzero(gone[pairs.to_VK].any(axis=1)):
        kept = ~gone[pairs.to_VK[a]]
        n = int(kept.sum())  # filled slots stay in front: `add_pair` stops at the first empty one
        pairs.to_VK[a, :n], pairs.weight_VK[a, :n] = pairs.to_VK[a][kept], pairs.weight_VK[a][kept]
        pairs.to_VK[a, n:], pairs.weight_VK[a, n:] = EMPTY, 0
