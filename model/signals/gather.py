"""Computes the signals of the titles that a query user's events reach: the compiled inner loops.

There are three sources: co-occurrence with the user's own titles, the titles of similar users
(`model.signals.user_knn`), and the user's preferences and activity. Sums over titles come first, and each sum becomes
a signal once at the end. Arrays are unpacked from their tuples before a loop, because access inside the loop costs
more than the addition itself.

V titles · P titles of the pool · F signals of one group · K neighbors of a title · L events of one history · G genres ·
B user-activity buckets · Y release years from FIRST_YEAR · C chosen slots · M added titles · X a flattened array
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.signals.fill import (
    FIRST_YEAR,
    PROFILE_ALL,
    PROFILE_RECENT,
    Scratch,
    UserFacts,
    UserSignals,
    mean_genre_affinity,
)
from model.signals.inputs import Query, TitleSignals, inverse_root_count, text_weights
from model.signals.pool import ALL_TITLES, Pool, add_rows, begin, slot_of, take_slot
from model.signals.table import Matched, Static, Summed
from model.signals.user_knn import add_user_knn_signals
from model.state.cooccurrence import PairCounts
from model.state.counters import Counters, activity_bucket
from model.state.interactions import InteractionIndex

# Set by hand with the first ranker; not measured one by one.
TRANSITION_TITLES: Final = 5  # recent titles whose transitions count
TRANSITION_DECAY: Final = 0.6  # per event back
TRANSITION_PRIOR: Final = 3.0  # added to a title's number of transitions: damps titles with few
SESSION_TITLES: Final = 10  # recent titles whose session co-occurrence counts
SESSION_DECAY: Final = 0.8  # per event back
HISTORY_DECAY: Final = 0.93  # per event back, of co-occurrence and repeats
PROFILE_DECAY: Final = 0.9  # per event back, of the user's years and popularity
RECENT_GENRE_TITLES: Final = 5  # recent titles whose genres count in "genre affinity recent"
TEXT_NEIGHBOR_TITLES: Final = 20  # recent titles whose text neighbors join the pool
INTER_EVENT_TITLES: Final = 10  # recent events over which the time between events is averaged
SESSION_MS: Final = 3_600_000  # events within this time before the query count as the present session
YEAR_RANGE: Final = 12  # years to either side that a title adds to the year profile
YEAR_DECAY_YEARS: Final = 3.0  # distance at which this contribution has fallen to 1/e
YEAR_SCALE_YEARS: Final = 8.0  # distance from the user's mean year at which "year proximity" is 1/2
UNKNOWN_YEAR_PROXIMITY: Final = 0.3  # "year proximity" of a title or user without a year
UNKNOWN_YEAR_AFFINITY: Final = 0.1  # "year affinity" of the same
_YEAR_KERNEL: Final = np.exp(-np.arange(YEAR_RANGE + 1) / YEAR_DECAY_YEARS)


@njit(cache=True)
def gather_user_signals(query: Query, titles: TitleSignals, counters: Counters, scratch: Scratch) -> UserSignals:
    """The signals of the titles that the query user's events reach, except text and backbone.

    They are in the buffers of `scratch`. `add_titles` lets further titles join.
    """
    pool = scratch.pool
    begin(pool)
    if titles.candidate_V.size <= ALL_TITLES:
        for v in range(titles.candidate_V.size):
            take_slot(pool, v)
    _add_transitions(query.recent_L, counters.transitions, pool)
    _add_session_cooccurrence(query.recent_L, counters.session_cooccurrence, titles.interactions, pool)
    _add_cooccurrence(query, counters.cooccurrence, titles.interactions, pool)
    add_user_knn_signals(query, titles, scratch)
    facts = _profile_user(query, titles, scratch)
    for h in query.recent_L:  # the user's own titles, and those with texts like their last ones
        slot_of(pool, h)
    for h in query.recent_L[:TEXT_NEIGHBOR_TITLES]:
        for v in titles.text_neighbors_VK[h]:
            if v >= 0:
                slot_of(pool, v)
    _finish_sums(titles.interactions, pool)
    profiles = scratch.genre_profile_2G, scratch.year_profile_Y
    user = UserSignals(query, pool, pool.size_1[0], scratch.similarity_U, *profiles, facts)
    _match(user, titles, counters, 0)
    _match_repeats(query.recent_L, pool)
    return user


@njit(cache=True)
def add_titles(user: UserSignals, titles: TitleSignals, counters: Counters, rows_M: NDArray[np.int64]) -> None:
    """Let titles join the pool, with all signals except text and backbone; the user's events do not reach them."""
    start = user.pool.size_1[0]
    add_rows(user.pool, rows_M)
    _match(user, titles, counters, start)


@njit(cache=True)
def _add_transitions(recent_L: NDArray[np.int32], transitions: PairCounts, pool: Pool) -> None:
    to_VK, weight_VK, total_V = transitions.to_VK, transitions.weight_VK, transitions.total_V
    slot_V, summed_PF = pool.slot_V, pool.summed_PF
    for j in range(min(TRANSITION_TITLES, recent_L.size)):
        h = recent_L[j]
        scale = np.float32(TRANSITION_DECAY**j) / (total_V[h] + np.float32(TRANSITION_PRIOR))
        for k in range(to_VK.shape[1]):
            v = to_VK[h, k]
            if v < 0:
                break
            p = slot_V[v]
            if p < 0:
                p = take_slot(pool, v)
            if j == 0:
                summed_PF[p, Summed.TRANSITION_LAST] += weight_VK[h, k]
            summed_PF[p, Summed.TRANSITION_RECENT] += scale * weight_VK[h, k]


@njit(cache=True)
def _add_session_cooccurrence(
    recent_L: NDArray[np.int32], session_cooccurrence: PairCounts, interactions: InteractionIndex, pool: Pool
) -> None:
    to_VK, weight_VK = session_cooccurrence.to_VK, session_cooccurrence.weight_VK
    slot_V, summed_PF = pool.slot_V, pool.summed_PF
    for j in range(min(SESSION_TITLES, recent_L.size)):
        h, recency = recent_L[j], np.float32(SESSION_DECAY**j)
        inverse_root = inverse_root_count(interactions, h)
        for k in range(to_VK.shape[1]):
            v = to_VK[h, k]
            if v < 0:
                break
            p = slot_V[v]
            if p < 0:
                p = take_slot(pool, v)
            w = recency * weight_VK[h, k]
            summed_PF[p, Summed.SESSION_COOCCURRENCE_RECENT] += w
            summed_PF[p, Summed.SESSION_COOCCURRENCE_COSINE] += w * inverse_root


@njit(cache=True)
def _add_cooccurrence(query: Query, cooccurrence: PairCounts, interactions: InteractionIndex, pool: Pool) -> None:
    to_VK, weight_VK, recent_L, liking_L = cooccurrence.to_VK, cooccurrence.weight_VK, query.recent_L, query.liking_L
    slot_V, summed_PF, recency = pool.slot_V, pool.summed_PF, np.float32(1.0)
    for j in range(recent_L.size):
        h, liking = recent_L[j], liking_L[j]
        inverse_root = inverse_root_count(interactions, h)
        for k in range(to_VK.shape[1]):
            v = to_VK[h, k]
            if v < 0:
                break
            p = slot_V[v]
            if p < 0:
                p = take_slot(pool, v)
            w = weight_VK[h, k] * inverse_root
            summed_PF[p, Summed.COOCCURRENCE_RECENT] += recency * w
            summed_PF[p, Summed.COOCCURRENCE_ALL] += w
            summed_PF[p, Summed.COOCCURRENCE_MAX] = max(summed_PF[p, Summed.COOCCURRENCE_MAX], w)
            summed_PF[p, Summed.COOCCURRENCE_LIKED] += liking * w
        recency *= np.float32(HISTORY_DECAY)


@njit(cache=True)
def _profile_user(query: Query, titles: TitleSignals, scratch: Scratch) -> UserFacts:
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
    return UserFacts(mean_year, np.float32(year_weight), np.float32(popularity), *activity)


@njit(cache=True)
def _finish_sums(interactions: InteractionIndex, pool: Pool) -> None:
    """Normalize the sums that grow with the title's own count, then take square roots."""
    summed_PF = pool.summed_PF
    for p in range(pool.size_1[0]):
        inverse_root = inverse_root_count(interactions, pool.row_P[p])
        for f in range(Summed.SESSION_COOCCURRENCE_COSINE, Summed.COOCCURRENCE_LIKED + 1):
            summed_PF[p, f] *= inverse_root
    flat_X = summed_PF[: pool.size_1[0]].reshape(-1)
    for x in range(flat_X.size):  # disliked titles and negative ridge weights give sums below zero
        flat_X[x] = np.sqrt(max(flat_X[x], np.float32(0.0)))


@njit(cache=True)
def _match(user: UserSignals, titles: TitleSignals, counters: Counters, start: int) -> None:
    """Write the matched signals of the slots from `start` on. Repeats, text and backbone are 0 at first."""
    pool, matched_FP = user.pool, user.pool.matched_FP
    part = slice(start, pool.size_1[0])
    row_P = pool.row_P[part]
    matched_FP[:, part] = 0.0
    affinity_P = matched_FP[Matched.GENRE_AFFINITY, part]
    mean_genre_affinity(titles.genres_VG, row_P, user.genre_profile_2G[PROFILE_ALL], affinity_P)
    _match_years(titles.year_V, row_P, user.facts, user.year_profile_Y, matched_FP[:, part])
    bucket = activity_bucket(user.query.user_events)
    for p in range(part.start, part.stop):
        matched_FP[Matched.ACTIVITY_BUCKET_POPULARITY, p] = np.log1p(counters.bucket_count_VB[pool.row_P[p], bucket])


@njit(cache=True)
def _match_repeats(recent_L: NDArray[np.int32], pool: Pool) -> None:
    matched_FP, recency = pool.matched_FP, np.float32(1.0)
    for h in recent_L:
        p = slot_of(pool, h)
        matched_FP[Matched.REPEAT_RECENCY, p] += recency
        matched_FP[Matched.REPEAT_COUNT, p] += np.float32(1.0)
        recency *= np.float32(HISTORY_DECAY)
    size = pool.size_1[0]
    for f in (Matched.REPEAT_RECENCY, Matched.REPEAT_COUNT):
        for p in range(size):
            matched_FP[f, p] = np.sqrt(matched_FP[f, p])


@njit(cache=True)
def match_text_neighbors(user: UserSignals, titles: TitleSignals, slot_C: NDArray[np.integer]) -> None:
    """Write the weighted mean of co-occurrence over the text neighbors of these slots' titles.

    A title outside the pool, and a missing one (-1), has no co-occurrence.
    """
    pool, text_neighbors_VK = user.pool, titles.text_neighbors_VK
    slot_V, row_P, summed_PF = pool.slot_V, pool.row_P, pool.summed_PF
    weight_K = np.zeros(text_neighbors_VK.shape[1], np.float32)
    out_P = pool.matched_FP[Matched.TEXT_NEIGHBOR_COOCCURRENCE]
    for c in range(slot_C.size):
        row, total = row_P[slot_C[c]], np.float32(0.0)
        text_weights(titles, row, weight_K)
        for k in range(text_neighbors_VK.shape[1]):
            other = text_neighbors_VK[row, k]
            if other >= 0 and slot_V[other] >= 0:
                total += weight_K[k] * summed_PF[slot_V[other], Summed.COOCCURRENCE_RECENT] ** 2
        out_P[slot_C[c]] = np.sqrt(total)


@njit(cache=True)
def _match_years(
    year_V: NDArray[np.float32],
    row_P: NDArray[np.int32],
    facts: UserFacts,
    year_profile_Y: NDArray[np.float32],
    matched_FP: NDArray[np.float32],
) -> None:
    mean, known = facts.mean_year, facts.year_weight > 0
    for p in range(row_P.size):
        year = year_V[row_P[p]]
        if not known or np.isnan(year):
            matched_FP[Matched.YEAR_PROXIMITY, p] = UNKNOWN_YEAR_PROXIMITY
            matched_FP[Matched.YEAR_AFFINITY, p] = UNKNOWN_YEAR_AFFINITY
            continue
        distance, y = (year - mean) / np.float32(YEAR_SCALE_YEARS), int(year) - FIRST_YEAR
        matched_FP[Matched.YEAR_PROXIMITY, p] = np.float32(1.0) / (np.float32(1.0) + distance * distance)
        matched_FP[Matched.YEAR_AFFINITY, p] = year_profile_Y[y] if 0 <= y < year_profile_Y.size else 0.0
