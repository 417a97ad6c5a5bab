"""Gathers what the stream knows for one user into the signals of every title: the compiled inner loops.

Three sources: what the user's own titles lead to (pairs), what users alike took (session k-nearest-neighbours, Jannach
and Ludewig 2017), and the user's taste and tempo. All is summed over titles first and made into signals once.
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.counters import CLOCKS, Counters
from model.signals import GENRES, NEIGHBOURS, SUMS, YEARS, Asked, Scratch, Titles, taste_of

ALIKE: Final = 40  # users asked
SHARED: Final = 20  # titles back by which users are found alike


@njit(cache=True)
def _sum_pairs(asked: Asked, titles: Titles, counters: Counters, sums: NDArray[np.float32]) -> None:
    follow, near, together = counters.follow, counters.near, counters.together
    recency = 1.0
    for j in range(asked.recent_L.size):
        h = asked.recent_L[j]
        rare = titles.rare_V[h]
        if j < 5:
            share = 0.6**j / (follow.total_V[h] + 3.0)
            for k in range(follow.to_VK.shape[1]):
                c = follow.to_VK[h, k]
                if c < 0:
                    break
                if j == 0:
                    sums[0, c] += follow.weight_VK[h, k]
                sums[1, c] += share * follow.weight_VK[h, k]
        if j < 10:
            weight = 0.8**j
            for k in range(near.to_VK.shape[1]):
                c = near.to_VK[h, k]
                if c < 0:
                    break
                w = weight * near.weight_VK[h, k]
                sums[2, c] += w
                sums[3, c] += w * rare
        for k in range(together.to_VK.shape[1]):
            c = together.to_VK[h, k]
            if c < 0:
                break
            w = together.weight_VK[h, k] * rare
            sums[4, c] += recency * w
            sums[5, c] += w
            sums[6, c] = max(sums[6, c], w)
            sums[7, c] += asked.liking_L[j] * w
        recency *= 0.93


@njit(cache=True)
def _find_alike(
    asked: Asked, titles: Titles, overlap: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The ALIKE users who share most with the asker's last titles: slots and similarities."""
    touched = np.empty(SHARED * titles.actors_VA.shape[1], np.int32)
    n = 0
    for j in range(min(SHARED, asked.recent_L.size)):
        h = asked.recent_L[j]
        weight = 0.93**j / (1.0 + titles.static_VS[h, CLOCKS])
        for k in range(titles.actors_VA.shape[1]):
            u = titles.actors_VA[h, k]
            if u < 0:
                break
            if u == asked.slot:
                continue
            if overlap[u] == 0.0:
                touched[n] = u
                n += 1
            overlap[u] += weight
    users, similar = touched[:n].copy(), np.empty(n, np.float32)
    for i in range(n):
        u = users[i]
        similar[i] = overlap[u] / np.sqrt(min(titles.many_U[u], titles.recent_UR.shape[1]) + 10.0)
        overlap[u] = 0.0
    best = np.argsort(-similar, kind="mergesort")[:ALIKE]
    return users[best], similar[best]


@njit(cache=True)
def _ask_alike(asked: Asked, titles: Titles, s: Scratch) -> None:
    users, similar = _find_alike(asked, titles, s.overlap_U)
    sums, mark, size = s.moving_MV, s.mark_V, titles.recent_UR.shape[1]
    shared = asked.recent_L[: min(10, asked.recent_L.size)]
    for h in shared:
        mark[h] = 1
    for i in range(users.size):
        u = users[i]
        n, start = min(titles.many_U[u], size), max(titles.many_U[u] - size, 0)
        after, before = 0.0, 0.0
        for p in range(n):
            c = titles.recent_UR[u, (start + p) % size]
            back = titles.recent_UR[u, (start + n - 1 - p) % size]
            if c >= 0:
                sums[8, c] += similar[i]
                sums[9, c] += similar[i] * after
                after = 1.0 if mark[c] else after * 0.85
            if back >= 0:
                sums[9, back] += 0.5 * similar[i] * before
                before = 1.0 if mark[back] else before * 0.85
    for h in shared:
        mark[h] = 0


@njit(cache=True)
def _know_user(asked: Asked, titles: Titles, s: Scratch) -> None:
    genres, user = s.genres_2G, s.user_Q
    genres[:], user[:] = 0.0, 0.0
    recency, years, total, popular = 1.0, 0.0, 0.0, 0.0
    for j in range(asked.recent_L.size):
        h = asked.recent_L[j]
        for g in titles.genres_VG[h]:
            if g < 0:
                break
            genres[0, g] += asked.liking_L[j]
            genres[1, g] += 1.0 if j < 5 else 0.0
        if not np.isnan(titles.year_V[h]):
            years += recency
            user[0] += recency * titles.year_V[h]
        total += recency
        popular += recency * titles.static_VS[h, CLOCKS]
        if asked.now - asked.times_L[j] < 3_600_000:
            user[2] += 1.0
        recency *= 0.9
    n = asked.recent_L.size
    if n > 0:
        genres[0] /= n
        genres[1] /= min(5, n)
        user[1] = popular / total
        span = min(n, 10)
        user[3] = np.log1p(max(asked.times_L[0] - asked.times_L[span - 1], 0) / 1000.0 / span)
        user[4] = np.log1p(max(asked.now - asked.times_L[0], 0) / 1000.0)
    if years > 0:
        user[0] /= years
    user[5] = years


@njit(cache=True)
def _finish(titles: Titles, s: Scratch) -> None:
    """Turn sums into signals: shares by the title's own count, square roots, what text neighbours earned, taste."""
    moving = s.moving_MV
    for c in range(titles.rare_V.size):
        for a in range(3, 8):
            moving[a, c] *= titles.rare_V[c]
        moving[7, c] = max(moving[7, c], 0.0)
    for a in range(SUMS):
        moving[a] = np.sqrt(moving[a])
    together = moving[4] * moving[4]
    for c in range(titles.rare_V.size):
        borrowed = np.float32(0.0)
        for k in range(titles.near_VK.shape[1]):
            other = titles.near_VK[c, k]
            if other >= 0:
                borrowed += titles.share_VK[c, k] * together[other]
        moving[NEIGHBOURS, c] = np.sqrt(borrowed)
        moving[GENRES, c] = taste_of(titles.genres_VG[c], s.genres_2G[0])
        away = (titles.year_V[c] - s.user_Q[0]) / 8.0
        known = s.user_Q[5] > 0 and not np.isnan(away)
        moving[YEARS, c] = 1.0 / (1.0 + away * away) if known else 0.3


@njit(cache=True)
def gather(asked: Asked, titles: Titles, counters: Counters, s: Scratch) -> None:
    """Read everything about the asker into the scratch, but text and backbone: before `shortlist` and `read`."""
    s.moving_MV[:SUMS] = 0.0
    _sum_pairs(asked, titles, counters, s.moving_MV)
    _ask_alike(asked, titles, s)
    _know_user(asked, titles, s)
    _finish(titles, s)
