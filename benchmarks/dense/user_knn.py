"""The dense reference's user-kNN signals: titles of similar users, overall and near the query user's recent titles.

`model.signals.user_knn` explains them. The buffers of all titles are cleared before each use.

A similar users · L events of one history · U users · V titles · F summed signals · I recent users of a title
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.dense.fill import DenseScratch
from benchmarks.dense.inputs import DenseTitleSignals, Query
from model.signals.table import Summed
from model.state.interactions import InteractionIndex, recent_titles_of

OVERLAP_TITLES: Final = 20  # recent titles of the query user whose users are similar
OVERLAP_DECAY: Final = 0.93  # weight of a shared title per event back in the query user's history
USER_SIZE_PRIOR: Final = 10.0  # events added to a user's number of titles, by whose root the similarity is divided
NEIGHBOR_TITLES: Final = 10  # recent titles of the query user around which other users' events are read
NEIGHBOR_WINDOW_EVENTS: Final = 8  # events to either side of the shared title
NEIGHBOR_TITLE_DECAY: Final = 0.8  # per event back in the query user's history
NEIGHBOR_STEP_DECAY: Final = 0.85  # per event from the shared title
NEIGHBOR_USER_DECAY: Final = 0.93  # per later user of the shared title, for "neighbor recency"
KNN_SIZE: Final = 64  # most similar users whose titles count
KNN_SESSION_TITLES: Final = 10  # recent titles of the query user that mark a session in similar users' histories
KNN_SESSION_DECAY: Final = 0.85  # per event from such a title
KNN_SESSION_BEFORE_WEIGHT: Final = 0.5  # of events before such a title, against those after it
TITLES_PER_USER: Final = 128  # latest titles that are read of each similar user
RIDGE_USERS: Final = 48  # most similar users in the ridge regression
RIDGE_PENALTY: Final = 0.5


@njit(cache=True)
def add_user_knn_signals(query: Query, titles: DenseTitleSignals, scratch: DenseScratch) -> None:
    """Add the user-kNN and neighbor signals to `summed_VF`; `similarity_U` stays filled for `fill_signals`."""
    for u in scratch.touched_U:
        if u < 0:
            break
        scratch.similarity_U[u] = 0.0
    found = _find_similar_users(query, titles.interactions, titles.idf_V, scratch.similarity_U, scratch.touched_U)
    _add_neighbor_events(query, titles.interactions, scratch.similarity_U, scratch.visited_V, scratch.summed_VF)
    touched_A = scratch.touched_U[:found].copy()
    similarity_A = scratch.similarity_U[touched_A]
    nearest = _nearest(similarity_A)
    rows_AL = np.empty((nearest.size, TITLES_PER_USER), np.int32)
    count_A = np.empty(nearest.size, np.int64)
    for a in range(nearest.size):
        count_A[a] = recent_titles_of(titles.interactions, touched_A[nearest[a]], rows_AL[a])
    _add_similar_users_titles(
        query.recent_L, similarity_A[nearest], rows_AL, count_A, scratch.visited_V, scratch.summed_VF
    )
    _deduplicate(rows_AL[:RIDGE_USERS], count_A, scratch.visited_V)
    _add_ridge_votes(
        query.recent_L,
        titles.idf_V,
        rows_AL[:RIDGE_USERS],
        count_A[:RIDGE_USERS],
        scratch.weight_V,
        scratch.summed_VF[:, Summed.KNN_RIDGE],
    )


@njit(cache=True)
def _find_similar_users(
    query: Query,
    interactions: InteractionIndex,
    idf_V: NDArray[np.float32],
    similarity_U: NDArray[np.float32],
    touched_U: NDArray[np.int32],
) -> int:
    """Write the recent users of the query's titles to `touched_U` and their similarity; return their number."""
    title_users_VI, title_count_V = interactions.title_users_VI, interactions.title_count_V
    recent_L, user_count_U = query.recent_L, interactions.user_count_U
    n, size = 0, title_users_VI.shape[1]
    for j in range(min(OVERLAP_TITLES, recent_L.size)):
        row = recent_L[j]
        weight = np.float32(OVERLAP_DECAY**j) * idf_V[row]
        for back in range(1, min(title_count_V[row], size) + 1):
            u = title_users_VI[row, (title_count_V[row] - back) % size]
            if u < 0 or u == query.user_index:
                continue
            if similarity_U[u] == 0.0:
                touched_U[n] = u
                n += 1
            similarity_U[u] += weight
    touched_U[n] = -1
    for i in range(n):
        u = touched_U[i]
        similarity_U[u] /= np.sqrt(min(user_count_U[u], TITLES_PER_USER) + USER_SIZE_PRIOR)
    return n


@njit(cache=True)
def _nearest(similarity_A: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the indices of the KNN_SIZE most similar users, most similar first; of equals the first."""
    kept = np.arange(similarity_A.size)
    if similarity_A.size > KNN_SIZE:
        least = np.partition(similarity_A, similarity_A.size - KNN_SIZE)[similarity_A.size - KNN_SIZE]
        kept = np.flatnonzero(similarity_A >= least)
    return kept[np.argsort(-similarity_A[kept], kind="mergesort")][:KNN_SIZE]


@njit(cache=True)
def _add_neighbor_events(
    query: Query,
    interactions: InteractionIndex,
    similarity_U: NDArray[np.float32],
    visited_V: NDArray[np.int8],
    summed_VF: NDArray[np.float32],
) -> None:
    """Add other users' events after and before the query's titles, weighted by distance, recency and similarity."""
    recent_L, title_users_VI, event_index_VI = query.recent_L, interactions.title_users_VI, interactions.event_index_VI
    title_count_V, user_count_U = interactions.title_count_V, interactions.user_count_U
    row_X, start_U, user_capacity_U = interactions.row_X, interactions.start_U, interactions.user_capacity_U
    title_weight, size = np.float32(1.0), title_users_VI.shape[1]
    visited_V[:] = 0
    for j in range(min(NEIGHBOR_TITLES, recent_L.size)):
        shared, user_recency = recent_L[j], np.float32(1.0)
        for back in range(1, min(title_count_V[shared], size) + 1):
            entry = (title_count_V[shared] - back) % size
            u = title_users_VI[shared, entry]
            if u < 0 or u == query.user_index:
                continue
            start, capacity, event_index = start_U[u], user_capacity_U[u], event_index_VI[shared, entry]
            oldest, newest = max(user_count_U[u] - capacity, 0), user_count_U[u] - 1
            if event_index < oldest:  # the user's ring buffer no longer holds the event
                continue
            after, before = (
                min(NEIGHBOR_WINDOW_EVENTS, newest - event_index),
                min(NEIGHBOR_WINDOW_EVENTS, event_index - oldest),
            )
            for direction, steps in ((1, after), (-1, before)):
                signal, weight = Summed.NEIGHBOR_AFTER if direction > 0 else Summed.NEIGHBOR_BEFORE, title_weight
                for step in range(1, steps + 1):
                    other = event_index + direction * step
                    v = row_X[start + (other if other < capacity else other % capacity)]
                    if v >= 0:
                        summed_VF[v, signal] += weight
                        summed_VF[v, Summed.NEIGHBOR_RECENCY] += weight * user_recency
                        summed_VF[v, Summed.NEIGHBOR_SIMILARITY] += weight * similarity_U[u]
                        if visited_V[v] != j + 1:
                            visited_V[v] = j + 1
                            summed_VF[v, Summed.NEIGHBOR_BREADTH] += 1.0
                    weight *= np.float32(NEIGHBOR_STEP_DECAY)
            user_recency *= np.float32(NEIGHBOR_USER_DECAY)
        title_weight *= np.float32(NEIGHBOR_TITLE_DECAY)


@njit(cache=True)
def _add_similar_users_titles(
    recent_L: NDArray[np.int32],
    similarity_A: NDArray[np.float32],
    rows_AL: NDArray[np.int32],
    count_A: NDArray[np.int64],
    visited_V: NDArray[np.int8],
    summed_VF: NDArray[np.float32],
) -> None:
    """Add the similar users' titles: all of them, and those near one of the query user's last titles."""
    visited_V[:] = 0
    for h in recent_L[:KNN_SESSION_TITLES]:
        visited_V[h] = 1
    for a in range(similarity_A.size):
        after, before, n = np.float32(0.0), np.float32(0.0), count_A[a]
        for i in range(n):
            backward, forward = rows_AL[a, i], rows_AL[a, n - 1 - i]  # from the newest event, and from the oldest
            summed_VF[forward, Summed.KNN_USERS] += similarity_A[a]
            summed_VF[forward, Summed.KNN_SESSIONS] += similarity_A[a] * after
            summed_VF[backward, Summed.KNN_SESSIONS] += np.float32(KNN_SESSION_BEFORE_WEIGHT) * similarity_A[a] * before
            after = np.float32(1.0) if visited_V[forward] else after * np.float32(KNN_SESSION_DECAY)
            before = np.float32(1.0) if visited_V[backward] else before * np.float32(KNN_SESSION_DECAY)


@njit(cache=True)
def _deduplicate(rows_AL: NDArray[np.int32], count_A: NDArray[np.int64], visited_V: NDArray[np.int8]) -> None:
    """Remove repeated titles of a user: the kernel of the regression is defined on sets."""
    visited_V[:] = 0
    for a in range(len(rows_AL)):
        rows_L, n = rows_AL[a], 0
        for i in range(count_A[a]):
            if not visited_V[rows_L[i]]:
                visited_V[rows_L[i]] = 1
                rows_L[n] = rows_L[i]
                n += 1
        for i in range(n):
            visited_V[rows_L[i]] = 0
        count_A[a] = n


@njit(cache=True)
def _add_ridge_votes(
    recent_L: NDArray[np.int32],
    idf_V: NDArray[np.float32],
    rows_AL: NDArray[np.int32],
    count_A: NDArray[np.int64],
    weight_V: NDArray[np.float32],
    sum_V: NDArray[np.float32],
) -> None:
    """Add the prediction of a kernel ridge regression from the similar users' titles to the query user's.

    The kernel is the cosine of two IDF-weighted sets of titles.
    """
    users, query_norm = count_A.size, np.float32(0.0)
    kernel_AA, target_A = np.zeros((users, users), np.float32), np.zeros(users, np.float32)
    for h in recent_L:
        if not weight_V[h]:
            weight_V[h] = idf_V[h]
            query_norm += idf_V[h]
    for a in range(users):
        target_A[a] = _sum_weights(weight_V, rows_AL[a], count_A[a])
    for h in recent_L:
        weight_V[h] = 0.0
    for a in range(users):
        for i in range(count_A[a]):
            weight_V[rows_AL[a, i]] = idf_V[rows_AL[a, i]]
        for b in range(a + 1):
            kernel_AA[a, b] = _sum_weights(weight_V, rows_AL[b], count_A[b])
        for i in range(count_A[a]):
            weight_V[rows_AL[a, i]] = 0.0
    norm_A = 1 / np.sqrt(np.diag(kernel_AA) + np.float32(1.0))
    for a in range(users):
        target_A[a] *= norm_A[a] / np.sqrt(query_norm + np.float32(1.0))
        for b in range(a + 1):
            kernel_AA[a, b] *= norm_A[a] * norm_A[b]
            kernel_AA[b, a] = kernel_AA[a, b]
        kernel_AA[a, a] += RIDGE_PENALTY
    vote_A = _solve(kernel_AA, target_A)
    for a in range(users):
        for i in range(count_A[a]):
            sum_V[rows_AL[a, i]] += vote_A[a] * norm_A[a]


@njit(cache=True)
def _sum_weights(weight_V: NDArray[np.float32], rows_L: NDArray[np.int32], count: int) -> np.float32:
    """Sum the weights of the first `count` rows; four independent accumulators hide the latency of the additions."""
    sum_0, sum_1, sum_2, sum_3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    even = count - count % 4
    for i in range(0, even, 4):
        sum_0 += weight_V[rows_L[i]]
        sum_1 += weight_V[rows_L[i + 1]]
        sum_2 += weight_V[rows_L[i + 2]]
        sum_3 += weight_V[rows_L[i + 3]]
    for i in range(even, count):
        sum_0 += weight_V[rows_L[i]]
    return (sum_0 + sum_1) + (sum_2 + sum_3)


@njit(cache=True)
def _solve(kernel_AA: NDArray[np.float32], target_A: NDArray[np.float32]) -> NDArray[np.float32]:
    """Solve K x = y for a positive definite K by elimination; overwrites both."""
    users = target_A.size
    for a in range(users):
        for b in range(a + 1, users):
            factor = kernel_AA[a, b] / kernel_AA[a, a]
            for c in range(b, users):
                kernel_AA[b, c] -= factor * kernel_AA[a, c]
            target_A[b] -= factor * target_A[a]
    for a in range(users - 1, -1, -1):
        for b in range(a + 1, users):
            target_A[a] -= kernel_AA[a, b] * target_A[b]
        target_A[a] /= kernel_AA[a, a]
    return target_A
