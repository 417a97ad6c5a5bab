"""The pool of one query: the titles that are scored for a user, with the signals that depend on the user.

A catalog may have a million titles, of which a user's events reach some thousands: through co-occurrence, other users'
events and texts. These titles get signals, and so do the best ones by other scores, which join them. A title of the
pool has a slot, its index in the pool's arrays. Sums are added to the slots directly, so that nothing is cleared or
summed over all titles.

V titles · P slots · F signals of one kind
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.signals.table import MATCHES, SUMS

MAX_REACHED: Final = 65_536  # titles that a query's events reach, at most; further ones are left out. 8,000 are usual
MAX_JOINING: Final = 8_192  # titles that join them: the best by other scores, new titles, negatives
ALL_TITLES: Final = 2_048  # a catalog of at most this many titles is the pool of every query
NO_SLOT: Final = -1
_CACHE_LINE_FLOATS: Final = 16


class Pool(NamedTuple):
    """Buffers that are reused for the next query. The arrays have one slot more: that of titles that find no place."""

    slot_V: NDArray[np.int32]  # NO_SLOT for a title outside the pool
    row_P: NDArray[np.int32]
    summed_PF: NDArray[np.float32]  # a title's sums share a cache line, because titles come in random order
    matched_FP: NDArray[np.float32]
    mark_P: NDArray[np.int8]  # zero between uses
    size_1: NDArray[np.int64]  # slots in use
    limit_1: NDArray[np.int64]  # slots that may be in use


def new_pool(titles: int) -> Pool:
    """An empty pool for a catalog of `titles` titles."""
    slots = min(titles, MAX_REACHED + MAX_JOINING) + 1
    flat = np.zeros(slots * SUMS + _CACHE_LINE_FLOATS, np.float32)
    start = -flat.ctypes.data // flat.itemsize % _CACHE_LINE_FLOATS
    return Pool(
        slot_V=np.full(titles, NO_SLOT, np.int32),
        row_P=np.zeros(slots, np.int32),
        summed_PF=flat[start : start + slots * SUMS].reshape(slots, SUMS),
        matched_FP=np.zeros((MATCHES, slots), np.float32),
        mark_P=np.zeros(slots, np.int8),
        size_1=np.zeros(1, np.int64),
        limit_1=np.array([slots - 1]),
    )


@njit(cache=True)
def take_slot(pool: Pool, row: int) -> int:
    """The slot of a title that has none yet, with sums of zero. If the pool is full, a slot that nothing reads."""
    p = int(pool.size_1[0])
    pool.summed_PF[p] = 0.0
    pool.mark_P[p] = 0
    if p >= pool.limit_1[0]:
        return p
    pool.slot_V[row], pool.row_P[p] = p, row
    pool.size_1[0] = p + 1
    return p


@njit(cache=True)
def slot_of(pool: Pool, row: int) -> int:
    """The slot of a title, which joins the pool if it is not in it."""
    p = int(pool.slot_V[row])
    return p if p >= 0 else take_slot(pool, row)


@njit(cache=True)
def begin(pool: Pool) -> None:
    """Empty the pool, for the titles that a query's events reach."""
    truncate(pool, 0)
    pool.limit_1[0] = min(len(pool.row_P) - 1, MAX_REACHED)


@njit(cache=True)
def add_rows(pool: Pool, rows_M: NDArray[np.int64]) -> None:
    """Let these titles join the pool. There is room for MAX_JOINING."""
    pool.limit_1[0] = len(pool.row_P) - 1
    for row in rows_M:
        slot_of(pool, row)


@njit(cache=True)
def truncate(pool: Pool, size: int) -> None:
    """Remove all titles but the first `size`."""
    for p in range(size, pool.size_1[0]):
        pool.slot_V[pool.row_P[p]] = NO_SLOT
    pool.size_1[0] = min(size, pool.size_1[0])
