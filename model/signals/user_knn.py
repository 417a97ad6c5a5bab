"""What users like the asker did: around the asker's last titles, and altogether. The compiled inner loops.

Whoever took one of the asker's last titles lately is asked; how much of a say each has is what they share, a rare title
counting for more (session k-nearest-neighbours, Jannach and Ludewig 2017). What stood near a shared title in their
sequences is what a count of pairs cannot keep for titles of few events. The few most alike are weighed once more by
kernel ridge regression over their titles, so that ten users who say the same do not have ten votes: EASE (Steck 2019)
in its dual form over a neighbourhood, whose cost does not know how many users or titles there are.

A user costs at most `SHARED x takers` steps for the shares, `AROUND x takers x 2 WINDOW` for the surroundings, and
`FITTED^2 x RECENT / 2` for the regression. Arrays are taken out of their tuples before a loop: inside it, that would
cost more than the step.
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.signals.table import (
    ALIKE_FITTED,
    ALIKE_SITTINGS,
    ALIKE_USERS,
    AROUND_AFTER,
    AROUND_ALIKE,
    AROUND_BEFORE,
    AROUND_BREADTH,
    AROUND_LATELY,
    Query,
    Scratch,
    TitleSignals,
)
from model.state.interactions import InteractionIndex, recent_titles_of

SHARED: Final = 20  # titles back by which users are found alike
AROUND: Final = 10  # titles back whose surroundings are read
WINDOW: Final = 8  # events to either side
ALIKE: Final = 64  # most alike users whose titles count
RECENT: Final = 128  # titles of each
FITTED: Final = 48  # of them, who are weighed against each other
RIDGE: Final = 0.5
SWEEPS: Final = 12


@njit(cache=True)
def add_user_knn_signals(query: Query, titles: TitleSignals, s: Scratch) -> None:
    """Add up what others took, in the rows of the scratch that are theirs; `overlap_U` stays, for `signals.read`."""
    for u in s.touched_N:
        if u < 0:
            break
        s.overlap_U[u] = 0.0
    many = _share(query, titles.interactions, titles.idf_V, s.overlap_U, s.touched_N)
    _look_around(query, titles.interactions, s.overlap_U, s.mark_V, s.sums_VM)
    touched = s.touched_N[:many].copy()
    similar = s.overlap_U[touched]
    best = _best(similar)
    rows_AR = np.empty((best.size, RECENT), np.int32)
    many_A = np.empty(best.size, np.int64)
    for a in range(best.size):
        many_A[a] = recent_titles_of(titles.interactions, touched[best[a]], rows_AR[a])
    _take(query.recent_L, similar[best], rows_AR, many_A, s.mark_V, s.sums_VM)
    _once(rows_AR[:FITTED], many_A, s.mark_V)
    _fit(query.recent_L, titles.idf_V, rows_AR[:FITTED], many_A[:FITTED], s.weight_V, s.sums_VM[:, ALIKE_FITTED])


@njit(cache=True)
def _share(
    query: Query,
    interactions: InteractionIndex,
    idf_V: NDArray[np.float32],
    overlap_U: NDArray[np.float32],
    touched_N: NDArray[np.int32],
) -> int:
    """Who took the asker's last titles lately: slots into `touched_N`, what they share into `overlap_U`; how many."""
    title_users_VA, title_count_V, user_count_U, recent_L, n = (
        interactions.title_users_VA,
        interactions.title_count_V,
        interactions.user_count_U,
        query.recent_L,
        0,
    )
    takers = title_users_VA.shape[1]
    for j in range(min(SHARED, recent_L.size)):
        row = recent_L[j]
        weight = np.float32(0.93**j) * idf_V[row]
        for back in range(1, min(title_count_V[row], takers) + 1):
            u = title_users_VA[row, (title_count_V[row] - back) % takers]
            if u < 0 or u == query.user_index:
                continue
            if overlap_U[u] == 0.0:
                touched_N[n] = u
                n += 1
            overlap_U[u] += weight
    touched_N[n] = -1
    for i in range(n):
        u = touched_N[i]
        overlap_U[u] /= np.sqrt(min(user_count_U[u], RECENT) + 10.0)
    return n


@njit(cache=True)
def _best(similar_N: NDArray[np.float32]) -> NDArray[np.int64]:
    """Places of the ALIKE most similar, most first, of equals the first."""
    few_M = np.arange(similar_N.size)
    if similar_N.size > ALIKE:
        few_M = np.flatnonzero(similar_N >= np.partition(similar_N, similar_N.size - ALIKE)[similar_N.size - ALIKE])
    return few_M[np.argsort(-similar_N[few_M], kind="mergesort")][:ALIKE]


@njit(cache=True)
def _look_around(
    query: Query,
    interactions: InteractionIndex,
    overlap_U: NDArray[np.float32],
    mark_V: NDArray[np.int8],
    sums_VM: NDArray[np.float32],
) -> None:
    """What others took after and before the asker's last titles: by nearness, by lateness, by likeness."""
    title_users_VA, event_index_VA, title_count_V, recent_L = (
        interactions.title_users_VA,
        interactions.event_index_VA,
        interactions.title_count_V,
        query.recent_L,
    )
    row_E, start_U, user_capacity_U, user_count_U = (
        interactions.row_E,
        interactions.start_U,
        interactions.user_capacity_U,
        interactions.user_count_U,
    )
    recency, takers = np.float32(1.0), title_users_VA.shape[1]
    mark_V[:] = 0
    for j in range(min(AROUND, recent_L.size)):
        snapshot, late = recent_L[j], np.float32(1.0)
        for back in range(1, min(title_count_V[snapshot], takers) + 1):
            place = (title_count_V[snapshot] - back) % takers
            u = title_users_VA[snapshot, place]
            if u < 0 or u == query.user_index:
                continue
            start, room, nth = start_U[u], user_capacity_U[u], event_index_VA[snapshot, place]
            oldest, newest = max(user_count_U[u] - room, 0), user_count_U[u] - 1
            if nth < oldest:  # the user went on since, further than is held
                continue
            after, before = min(WINDOW, newest - nth), min(WINDOW, nth - oldest)
            for side, steps in ((1, after), (-1, before)):
                way, weight = AROUND_AFTER if side > 0 else AROUND_BEFORE, recency
                for step in range(1, steps + 1):
                    other = nth + side * step
                    c = row_E[start + (other if other < room else other % room)]
                    if c >= 0:
                        sums_VM[c, way] += weight
                        sums_VM[c, AROUND_LATELY] += weight * late
                        sums_VM[c, AROUND_ALIKE] += weight * overlap_U[u]
                        if mark_V[c] != j + 1:
                            mark_V[c] = j + 1
                            sums_VM[c, AROUND_BREADTH] += 1.0
                    weight *= np.float32(0.85)
            late *= np.float32(0.93)
        recency *= np.float32(0.8)


@njit(cache=True)
def _take(
    recent_L: NDArray[np.int32],
    similar_A: NDArray[np.float32],
    rows_AR: NDArray[np.int32],
    many_A: NDArray[np.int64],
    mark_V: NDArray[np.int8],
    sums_VM: NDArray[np.float32],
) -> None:
    """What the most alike users took, and what of it near the asker's last ten titles."""
    mark_V[:] = 0
    for h in recent_L[:10]:
        mark_V[h] = 1
    for a in range(similar_A.size):
        after, before, n = np.float32(0.0), np.float32(0.0), many_A[a]
        for p in range(n):
            back, c = rows_AR[a, p], rows_AR[a, n - 1 - p]
            sums_VM[c, ALIKE_USERS] += similar_A[a]
            sums_VM[c, ALIKE_SITTINGS] += similar_A[a] * after
            sums_VM[back, ALIKE_SITTINGS] += np.float32(0.5) * similar_A[a] * before
            after = np.float32(1.0) if mark_V[c] else after * np.float32(0.85)
            before = np.float32(1.0) if mark_V[back] else before * np.float32(0.85)


@njit(cache=True)
def _once(rows_AR: NDArray[np.int32], many_A: NDArray[np.int64], mark_V: NDArray[np.int8]) -> None:
    """Leave out what a user took again: the regression is of sets, and with repeats its kernel would be none."""
    mark_V[:] = 0
    for a in range(len(rows_AR)):
        rows_R, n = rows_AR[a], 0
        for p in range(many_A[a]):
            if not mark_V[rows_R[p]]:
                mark_V[rows_R[p]] = 1
                rows_R[n] = rows_R[p]
                n += 1
        for p in range(n):
            mark_V[rows_R[p]] = 0
        many_A[a] = n


@njit(cache=True)
def _fit(
    recent_L: NDArray[np.int32],
    idf_V: NDArray[np.float32],
    rows_AR: NDArray[np.int32],
    many_A: NDArray[np.int64],
    weight_V: NDArray[np.float32],
    sum_V: NDArray[np.float32],
) -> None:
    """Each one's vote is the regression's: of the asker's titles on theirs, as cosines of weighted sets."""
    fitted, mine = many_A.size, np.float32(0.0)
    kernel_AA, own_A = np.zeros((fitted, fitted), np.float32), np.zeros(fitted, np.float32)
    for h in recent_L:
        if not weight_V[h]:
            weight_V[h] = idf_V[h]
            mine += idf_V[h]
    for a in range(fitted):
        own_A[a] = _sum(weight_V, rows_AR[a], many_A[a])
    for h in recent_L:
        weight_V[h] = 0.0
    for a in range(fitted):
        for p in range(many_A[a]):
            weight_V[rows_AR[a, p]] = idf_V[rows_AR[a, p]]
        for b in range(a + 1):
            kernel_AA[a, b] = _sum(weight_V, rows_AR[b], many_A[b])
        for p in range(many_A[a]):
            weight_V[rows_AR[a, p]] = 0.0
    norm_A = 1 / np.sqrt(np.diag(kernel_AA) + np.float32(1.0))
    for a in range(fitted):
        own_A[a] *= norm_A[a] / np.sqrt(mine + np.float32(1.0))
        for b in range(a + 1):
            kernel_AA[a, b] *= norm_A[a] * norm_A[b]
            kernel_AA[b, a] = kernel_AA[a, b]
        kernel_AA[a, a] += RIDGE
    vote_A = _solve(kernel_AA, own_A)
    for a in range(fitted):
        for p in range(many_A[a]):
            sum_V[rows_AR[a, p]] += vote_A[a] * norm_A[a]


@njit(cache=True)
def _sum(weight_V: NDArray[np.float32], rows_R: NDArray[np.int32], many: int) -> np.float32:
    """Four sums at a time, for one would have to wait for itself."""
    sum_0, sum_1, sum_2, sum_3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    even = many - many % 4
    for p in range(0, even, 4):
        sum_0 += weight_V[rows_R[p]]
        sum_1 += weight_V[rows_R[p + 1]]
        sum_2 += weight_V[rows_R[p + 2]]
        sum_3 += weight_V[rows_R[p + 3]]
    for p in range(even, many):
        sum_0 += weight_V[rows_R[p]]
    return (sum_0 + sum_1) + (sum_2 + sum_3)


@njit(cache=True)
def _solve(kernel_AA: NDArray[np.float32], own_A: NDArray[np.float32]) -> NDArray[np.float32]:
    """x of K x = y, K positive definite, by sweeps of Gauss and Seidel."""
    vote_A = np.zeros_like(own_A)
    for _ in range(SWEEPS):
        for a in range(vote_A.size):
            rest = own_A[a] + kernel_AA[a, a] * vote_A[a]
            for b in range(vote_A.size):
                rest -= kernel_AA[a, b] * vote_A[b]
            vote_A[a] = rest / kernel_AA[a, a]
    return vote_A
