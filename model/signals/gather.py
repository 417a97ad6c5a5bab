"""Gathers what the stream knows for one user into the signals of every title: the compiled inner loops.

Three sources: what the user's own titles lead to (pairs), what users alike took (`model.signals.user_knn`), and the user's taste
and tempo. All is summed over titles first and made into signals once. Arrays are taken out of their tuples before a
loop: inside it, that would cost more than the step.
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.signals.table import (
    ERAS,
    FIRST_YEAR,
    FOLLOWED_LAST,
    FOLLOWED_RECENT,
    GENRES,
    NEAR_RECENT,
    NEAR_SHARE,
    NEIGHBORS,
    STAGE,
    TAKEN_LATELY,
    TAKEN_OFTEN,
    TOGETHER_ALL,
    TOGETHER_LIKED,
    TOGETHER_MOST,
    TOGETHER_RECENT,
    YEARS,
    Query,
    Scratch,
    TitleSignals,
    suit_genres,
)
from model.signals.user_knn import add_user_knn_signals
from model.state.cooccurrence import Pairs
from model.state.counters import CLOCKS, Counters, activity_bucket

YEARS_APART: Final = 12  # beyond which one title's year says nothing of another's
HOUR: Final = 3_600_000  # ms
_FADE: Final = np.exp(-np.arange(YEARS_APART + 1) / 3.0)


@njit(cache=True)
def gather(query: Query, titles: TitleSignals, counters: Counters, s: Scratch) -> None:
    """Read everything about the asker into the scratch, but text and backbone: before `shortlist` and `read`."""
    s.sums_VM[:] = 0.0
    _sum_followers(query.recent_L, counters.follow, s.sums_VM)
    _sum_near(query.recent_L, counters.near, titles.inv_sqrt_count_V, s.sums_VM)
    _sum_together(query, counters.together, titles.inv_sqrt_count_V, s.sums_VM)
    add_user_knn_signals(query, titles, s)
    _know_user(query, titles, s)
    _finish_sums(titles.inv_sqrt_count_V, s.sums_VM)
    _suit_taken(query.recent_L, s.suited_MV)
    _borrow(titles.near_VK, titles.share_VK, s.sums_VM, s.suited_MV[NEIGHBORS])
    suit_genres(titles.genres_VG, s.genres_2G[0], s.suited_MV[GENRES])
    _suit_years(titles.year_V, s.user_Q, s.era_Y, s.suited_MV)
    s.suited_MV[STAGE] = titles.stage_BV[activity_bucket(query.events)]


@njit(cache=True)
def _sum_followers(recent_L: NDArray[np.int32], follow: Pairs, sums_VM: NDArray[np.float32]) -> None:
    to_VK, weight_VK, total_V = follow.to_VK, follow.weight_VK, follow.total_V
    for j in range(min(5, recent_L.size)):
        h = recent_L[j]
        share = np.float32(0.6**j) / (total_V[h] + np.float32(3.0))
        for k in range(to_VK.shape[1]):
            c = to_VK[h, k]
            if c < 0:
                break
            if j == 0:
                sums_VM[c, FOLLOWED_LAST] += weight_VK[h, k]
            sums_VM[c, FOLLOWED_RECENT] += share * weight_VK[h, k]


@njit(cache=True)
def _sum_near(
    recent_L: NDArray[np.int32], near: Pairs, inv_sqrt_count_V: NDArray[np.float32], sums_VM: NDArray[np.float32]
) -> None:
    to_VK, weight_VK = near.to_VK, near.weight_VK
    for j in range(min(10, recent_L.size)):
        h, recency = recent_L[j], np.float32(0.8**j)
        for k in range(to_VK.shape[1]):
            c = to_VK[h, k]
            if c < 0:
                break
            w = recency * weight_VK[h, k]
            sums_VM[c, NEAR_RECENT] += w
            sums_VM[c, NEAR_SHARE] += w * inv_sqrt_count_V[h]


@njit(cache=True)
def _sum_together(
    query: Query, together: Pairs, inv_sqrt_count_V: NDArray[np.float32], sums_VM: NDArray[np.float32]
) -> None:
    to_VK, weight_VK, recent_L, liking_L = together.to_VK, together.weight_VK, query.recent_L, query.liking_L
    recency = np.float32(1.0)
    for j in range(recent_L.size):
        h, liking = recent_L[j], liking_L[j]
        for k in range(to_VK.shape[1]):
            c = to_VK[h, k]
            if c < 0:
                break
            w = weight_VK[h, k] * inv_sqrt_count_V[h]
            sums_VM[c, TOGETHER_RECENT] += recency * w
            sums_VM[c, TOGETHER_ALL] += w
            sums_VM[c, TOGETHER_MOST] = max(sums_VM[c, TOGETHER_MOST], w)
            sums_VM[c, TOGETHER_LIKED] += liking * w
        recency *= np.float32(0.93)


@njit(cache=True)
def _know_user(query: Query, titles: TitleSignals, s: Scratch) -> None:
    """Taste in genres and years, tempo: means over the history, the newest titles counting for more."""
    genres_2G, user_Q, era_Y = s.genres_2G, s.user_Q, s.era_Y
    genres_VG, year_V, static_VS = titles.genres_VG, titles.year_V, titles.static_VS
    recent_L, times_L, liking_L, n = query.recent_L, query.times_L, query.liking_L, query.recent_L.size
    genres_2G[:], user_Q[:], era_Y[:] = 0.0, 0.0, 0.0
    recency, years, total, popular = 1.0, 0.0, 0.0, 0.0
    for j in range(n):
        h = recent_L[j]
        for k in range(genres_VG.shape[1]):
            g = genres_VG[h, k]
            if g < 0:
                break
            genres_2G[0, g] += liking_L[j] / n
            genres_2G[1, g] += 1.0 / min(5, n) if j < 5 else 0.0
        if not np.isnan(year_V[h]):
            years += recency
            user_Q[0] += recency * year_V[h]
            for apart in range(-YEARS_APART, YEARS_APART + 1):
                y = int(year_V[h]) - FIRST_YEAR + apart
                if 0 <= y < era_Y.size:
                    era_Y[y] += recency * _FADE[abs(apart)]
        total += recency
        popular += recency * static_VS[h, CLOCKS]
        user_Q[2] += 1.0 if query.now - times_L[j] < HOUR else 0.0
        user_Q[6] += liking_L[j] / n
        recency *= 0.9
    if n > 0:
        user_Q[1] = popular / total
        span = min(n, 10)
        user_Q[3] = np.log1p(max(times_L[0] - times_L[span - 1], 0) / 1000.0 / span)
        user_Q[4] = np.log1p(max(query.now - times_L[0], 0) / 1000.0)
    if years > 0:
        user_Q[0] /= years
        for y in range(era_Y.size):
            era_Y[y] /= years
    user_Q[5] = years


@njit(cache=True)
def _finish_sums(inv_sqrt_count_V: NDArray[np.float32], sums_VM: NDArray[np.float32]) -> None:
    """Shares by the title's own count where the sum grew with it; then square roots."""
    for c in range(inv_sqrt_count_V.size):
        for a in range(NEAR_SHARE, TOGETHER_LIKED + 1):
            sums_VM[c, a] *= inv_sqrt_count_V[c]
    flat_X = sums_VM.reshape(-1)
    for x in range(flat_X.size):
        flat_X[x] = np.sqrt(max(flat_X[x], np.float32(0.0)))  # disliked, voted against: below zero


@njit(cache=True)
def _suit_taken(recent_L: NDArray[np.int32], suited_MV: NDArray[np.float32]) -> None:
    recency = np.float32(1.0)
    suited_MV[TAKEN_LATELY], suited_MV[TAKEN_OFTEN] = 0.0, 0.0
    for h in recent_L:
        suited_MV[TAKEN_LATELY, h] += recency
        suited_MV[TAKEN_OFTEN, h] += 1.0
        recency *= np.float32(0.93)
    suited_MV[TAKEN_LATELY : TAKEN_OFTEN + 1] = np.sqrt(suited_MV[TAKEN_LATELY : TAKEN_OFTEN + 1])


@njit(cache=True)
def _borrow(
    near_VK: NDArray[np.int32], share_VK: NDArray[np.float32], sums_VM: NDArray[np.float32], out_V: NDArray[np.float32]
) -> None:
    """What a title's text neighbours have earned; a missing one (-1) has no share."""
    earned_V, even = sums_VM[:, TOGETHER_RECENT] ** 2, near_VK.shape[1] - near_VK.shape[1] % 4
    for c in range(out_V.size):
        sum_0, sum_1, sum_2, sum_3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for k in range(0, even, 4):  # four sums at a time, for one would have to wait for itself
            sum_0 += share_VK[c, k] * earned_V[near_VK[c, k]]
            sum_1 += share_VK[c, k + 1] * earned_V[near_VK[c, k + 1]]
            sum_2 += share_VK[c, k + 2] * earned_V[near_VK[c, k + 2]]
            sum_3 += share_VK[c, k + 3] * earned_V[near_VK[c, k + 3]]
        for k in range(even, near_VK.shape[1]):
            sum_0 += share_VK[c, k] * earned_V[near_VK[c, k]]
        out_V[c] = np.sqrt((sum_0 + sum_1) + (sum_2 + sum_3))


@njit(cache=True)
def _suit_years(
    year_V: NDArray[np.float32], user_Q: NDArray[np.float32], era_Y: NDArray[np.float32], suited_MV: NDArray[np.float32]
) -> None:
    mean, known = user_Q[0], user_Q[5] > 0
    for c in range(year_V.size):
        if not known or np.isnan(year_V[c]):
            suited_MV[YEARS, c], suited_MV[ERAS, c] = 0.3, 0.1
            continue
        away, y = (year_V[c] - mean) / np.float32(8.0), int(year_V[c]) - FIRST_YEAR
        suited_MV[YEARS, c] = np.float32(1.0) / (np.float32(1.0) + away * away)
        suited_MV[ERAS, c] = era_Y[y] if 0 <= y < era_Y.size else 0.0
