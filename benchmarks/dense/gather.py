"""Computes the dense reference's signals of all titles for one query user: the compiled inner loops.

There are three sources: co-occurrence with the user's own titles, the titles of similar users (`user_knn`), and the
user's preferences and activity. All titles are cleared, summed and matched for each query.

V titles · F signals of one group · K neighbors of a title · L events of one history · G genres · B user-activity
buckets · Y release years from FIRST_YEAR · X a flattened array
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.dense.fill import (
    FIRST_YEAR,
    PROFILE_ALL,
    PROFILE_RECENT,
    DenseScratch,
    DenseUserFacts,
    DenseUserSignals,
    mean_genre_affinity,
)
from benchmarks.dense.inputs import DenseTitleSignals, Query
from benchmarks.dense.user_knn import add_user_knn_signals
from model.signals.table import Matched, Static, Summed
from model.state.cooccurrence import PairCounts
from model.state.counters import Counters, activity_bucket

TRANSITION_TITLES: Final = 5  # recent titles whose transitions count
TRANSITION_DECAY: Final = 0.6  # per event back
TRANSITION_PRIOR: Final = 3.0  # added to a title's number of transitions: damps titles with few
SESSION_TITLES: Final = 10  # recent titles whose session co-occurrence counts
SESSION_DECAY: Final = 0.8  # per event back
HISTORY_DECAY: Final = 0.93  # per event back, of co-occurrence and repeats
PROFILE_DECAY: Final = 0.9  # per event back, of the user's years and popularity
RECENT_GENRE_TITLES: Final = 5
INTER_EVENT_TITLES: Final = 10  # recent events over which the time between events is averaged
SESSION_MS: Final = 3_600_000  # events within this time before the query count as the present session
YEAR_RANGE: Final = 12  # years to either side that a title adds to the year profile
YEAR_DECAY_YEARS: Final = 3.0  # distance at which this contribution has fallen to 1/e
YEAR_SCALE_YEARS: Final = 8.0  # distance from the user's mean year at which "year proximity" is 1/2
UNKNOWN_YEAR_PROXIMITY: Final = 0.3  # of a title or user without a year
UNKNOWN_YEAR_AFFINITY: Final = 0.1
_YEAR_KERNEL: Final = np.exp(-np.arange(YEAR_RANGE + 1) / YEAR_DECAY_YEARS)


@njit(cache=True)
def gather_user_signals(
    query: Query, titles: DenseTitleSignals, counters: Counters, scratch: DenseScratch
) -> DenseUserSignals:
    """The query user's signals for all titles, except text and backbone. They use the buffers of `scratch`."""
    summed_VF, matched_FV = scratch.summed_VF, scratch.matched_FV
    summed_VF[:] = 0.0
    _add_transitions(query.recent_L, counters.transitions, summed_VF)
    _add_session_cooccurrence(query.recent_L, counters.session_cooccurrence, titles.inv_sqrt_count_V, summed_VF)
    _add_cooccurrence(query, counters.cooccurrence, titles.inv_sqrt_count_V, summed_VF)
    add_user_knn_signals(query, titles, scratch)
    facts = _profile_user(query, titles, scratch)
    _finish_sums(titles.inv_sqrt_count_V, summed_VF)
    _match_repeats(query.recent_L, matched_FV)
    _match_text_neighbors(
        titles.text_neighbors_VK, titles.text_weight_VK, summed_VF, matched_FV[Matched.TEXT_NEIGHBOR_COOCCURRENCE]
    )
    mean_genre_affinity(titles.genres_VG, scratch.genre_profile_2G[PROFILE_ALL], matched_FV[Matched.GENRE_AFFINITY])
    _match_years(titles.year_V, facts, scratch.year_profile_Y, matched_FV)
    bucket = activity_bucket(query.user_events)
    matched_FV[Matched.ACTIVITY_BUCKET_POPULARITY] = titles.bucket_popularity_BV[bucket]
    return DenseUserSignals(query, summed_VF, matched_FV, scratch.similarity_U, scratch.genre_profile_2G, facts)


@njit(cache=True)
def _add_transitions(recent_L: NDArray[np.int32], transitions: PairCounts, summed_VF: NDArray[np.float32]) -> None:
    to_VK, weight_VK, total_V = transitions.to_VK, transitions.weight_VK, transitions.total_V
    for j in range(min(TRANSITION_TITLES, recent_L.size)):
        h = recent_L[j]
        scale = np.float32(TRANSITION_DECAY**j) / (total_V[h] + np.float32(TRANSITION_PRIOR))
        for k in range(to_VK.shape[1]):
            v = to_VK[h, k]
            if v < 0:
                break
            if j == 0:
                summed_VF[v, Summed.TRANSITION_LAST] += weight_VK[h, k]
            summed_VF[v, Summed.TRANSITION_RECENT] += scale * weight_VK[h, k]


@njit(cache=True)
def _add_session_cooccurrence(
    recent_L: NDArray[np.int32],
    session_cooccurrence: PairCounts,
    inv_sqrt_count_V: NDArray[np.float32],
    summed_VF: NDArray[np.float32],
) -> None:
    to_VK, weight_VK = session_cooccurrence.to_VK, session_cooccurrence.weight_VK
    for j in range(min(SESSION_TITLES, recent_L.size)):
        h, recency = recent_L[j], np.float32(SESSION_DECAY**j)
        for k in range(to_VK.shape[1]):
            v = to_VK[h, k]
            if v < 0:
                break
            w = recency * weight_VK[h, k]
            summed_VF[v, Summed.SESSION_COOCCURRENCE_RECENT] += w
            summed_VF[v, Summed.SESSION_COOCCURRENCE_COSINE] += w * inv_sqrt_count_V[h]


@njit(cache=True)
def _add_cooccurrence(
    query: Query, cooccurrence: PairCounts, inv_sqrt_count_V: NDArray[np.float32], summed_VF: NDArray[np.float32]
) -> None:
    to_VK, weight_VK, recent_L, liking_L = cooccurrence.to_VK, cooccurrence.weight_VK, query.recent_L, query.liking_L
    recency = np.float32(1.0)
    for j in range(recent_L.size):
        h, liking = recent_L[j], liking_L[j]
        for k in range(to_VK.shape[1]):
            v = to_VK[h, k]
            if v < 0:
                break
            w = weight_VK[h, k] * inv_sqrt_count_V[h]
            summed_VF[v, Summed.COOCCURRENCE_RECENT] += recency * w
            summed_VF[v, Summed.COOCCURRENCE_ALL] += w
            summed_VF[v, Summed.COOCCURRENCE_MAX] = max(summed_VF[v, Summed.COOCCURRENCE_MAX], w)
            summed_VF[v, Summed.COOCCURRENCE_LIKED] += liking * w
        recency *= np.float32(HISTORY_DECAY)


@njit(cache=True)
def _profile_user(query: Query, titles: DenseTitleSignals, scratch: DenseScratch) -> DenseUserFacts:
    """Compute the user's genre and year profiles and facts: means over the history, weighted by recency."""
    genre_profile_2G, year_profile_Y = scratch.genre_profile_2G, scratch.year_profile_Y
    genres_VG, year_V, static_VF = titles.genres_VG, titles.year_V, titles.static_VF
    recent_L, times_L, liking_L, n = query.recent_L, query.times_L, query.liking_L, query.recent_L.size
    genre_profile_2G[:], year_profile_Y[:] = 0.0, 0.0
    recency, year_weight, total, popularity = 1.0, 0.0, 0.0, 0.0
    mean_year, session_events, mean_liking = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for j in range(n):
        h = recent_L[j]
        for k in range(genres_VG.shape[1]):
            g = genres_VG[h, k]
            if g < 0:
                break
            genre_profile_2G[PROFILE_ALL, g] += liking_L[j] / n
            genre_profile_2G[PROFILE_RECENT, g] += 1.0 / min(RECENT_GENRE_TITLES, n) if j < RECENT_GENRE_TITLES else 0.0
        if not np.isnan(year_V[h]):
            year_weight += recency
            mean_year = np.float32(mean_year + recency * year_V[h])
            for distance in range(-YEAR_RANGE, YEAR_RANGE + 1):
                y = int(year_V[h]) - FIRST_YEAR + distance
                if 0 <= y < year_profile_Y.size:
                    year_profile_Y[y] += recency * _YEAR_KERNEL[abs(distance)]
        total += recency
        popularity += recency * static_VF[h, Static.POPULARITY_TOTAL]
        session_events += np.float32(1.0) if query.now - times_L[j] < SESSION_MS else np.float32(0.0)
        mean_liking = np.float32(mean_liking + liking_L[j] / n)
        recency *= PROFILE_DECAY
    inter_event_time, idle_time = np.float32(0.0), np.float32(0.0)
    if n > 0:
        popularity /= total
        span = min(n, INTER_EVENT_TITLES)
        inter_event_time = np.float32(np.log1p(max(times_L[0] - times_L[span - 1], 0) / 1000.0 / span))
        idle_time = np.float32(np.log1p(max(query.now - times_L[0], 0) / 1000.0))
    if year_weight > 0:
        mean_year = np.float32(mean_year / year_weight)
        for y in range(year_profile_Y.size):
            year_profile_Y[y] /= year_weight
    activity = session_events, inter_event_time, idle_time, mean_liking
    return DenseUserFacts(mean_year, np.float32(year_weight), np.float32(popularity), *activity)


@njit(cache=True)
def _finish_sums(inv_sqrt_count_V: NDArray[np.float32], summed_VF: NDArray[np.float32]) -> None:
    """Normalize the sums that grow with the title's own count, then take square roots."""
    for v in range(inv_sqrt_count_V.size):
        for f in range(Summed.SESSION_COOCCURRENCE_COSINE, Summed.COOCCURRENCE_LIKED + 1):
            summed_VF[v, f] *= inv_sqrt_count_V[v]
    flat_X = summed_VF.reshape(-1)
    for x in range(flat_X.size):  # disliked titles and negative ridge weights give sums below zero
        flat_X[x] = np.sqrt(max(flat_X[x], np.float32(0.0)))


@njit(cache=True)
def _match_repeats(recent_L: NDArray[np.int32], matched_FV: NDArray[np.float32]) -> None:
    recency = np.float32(1.0)
    matched_FV[Matched.REPEAT_RECENCY], matched_FV[Matched.REPEAT_COUNT] = 0.0, 0.0
    for h in recent_L:
        matched_FV[Matched.REPEAT_RECENCY, h] += recency
        matched_FV[Matched.REPEAT_COUNT, h] += 1.0
        recency *= np.float32(HISTORY_DECAY)
    matched_FV[Matched.REPEAT_RECENCY : Matched.REPEAT_COUNT + 1] = np.sqrt(
        matched_FV[Matched.REPEAT_RECENCY : Matched.REPEAT_COUNT + 1]
    )


@njit(cache=True)
def _match_text_neighbors(
    text_neighbors_VK: NDArray[np.int32],
    text_weight_VK: NDArray[np.float32],
    summed_VF: NDArray[np.float32],
    out_V: NDArray[np.float32],
) -> None:
    """Write the weighted mean of co-occurrence over each title's text neighbors; a missing one (-1) has weight 0."""
    size = text_neighbors_VK.shape[1]
    value_V, even = summed_VF[:, Summed.COOCCURRENCE_RECENT] ** 2, size - size % 4
    for v in range(out_V.size):
        sum_0, sum_1, sum_2, sum_3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for k in range(0, even, 4):  # four independent accumulators hide the latency of dependent additions
            sum_0 += text_weight_VK[v, k] * value_V[text_neighbors_VK[v, k]]
            sum_1 += text_weight_VK[v, k + 1] * value_V[text_neighbors_VK[v, k + 1]]
            sum_2 += text_weight_VK[v, k + 2] * value_V[text_neighbors_VK[v, k + 2]]
            sum_3 += text_weight_VK[v, k + 3] * value_V[text_neighbors_VK[v, k + 3]]
        for k in range(even, size):
            sum_0 += text_weight_VK[v, k] * value_V[text_neighbors_VK[v, k]]
        out_V[v] = np.sqrt((sum_0 + sum_1) + (sum_2 + sum_3))


@njit(cache=True)
def _match_years(
    year_V: NDArray[np.float32],
    facts: DenseUserFacts,
    year_profile_Y: NDArray[np.float32],
    matched_FV: NDArray[np.float32],
) -> None:
    mean, known = facts.mean_year, facts.year_weight > 0
    for v in range(year_V.size):
        if not known or np.isnan(year_V[v]):
            matched_FV[Matched.YEAR_PROXIMITY, v], matched_FV[Matched.YEAR_AFFINITY, v] = (
                UNKNOWN_YEAR_PROXIMITY,
                UNKNOWN_YEAR_AFFINITY,
            )
            continue
        distance, y = (year_V[v] - mean) / np.float32(YEAR_SCALE_YEARS), int(year_V[v]) - FIRST_YEAR
        matched_FV[Matched.YEAR_PROXIMITY, v] = np.float32(1.0) / (np.float32(1.0) + distance * distance)
        matched_FV[Matched.YEAR_AFFINITY, v] = year_profile_Y[y] if 0 <= y < year_profile_Y.size else 0.0
