"""What the ranker sees of a title for a user: streaming counts, text, taste and tempo, read at one moment.

Two depths. The first DENSE signals can be had for every title at once and pick the few hundred candidates; all SIGNALS
are read for the candidates only. Counts enter as logs or shares so that one scale serves small and large catalogues.
Loops are compiled (numba): a user costs some `history x slots` additions, whatever the number of users.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.counters import CLOCKS, Counters

STATIC: Final = (*(f"popular {c}" for c in range(CLOCKS)), "popular ever", "no event yet", "one event")
DENSE: Final = (
    *STATIC,
    *("followed last", "followed recent", "near recent", "near share", "together recent", "together all"),
    *("together most", "together liked", "alike users", "alike sittings"),
    *("text recent", "text neighbours", "genres", "years", "backbone"),
)
SIGNALS: Final = (
    *DENSE,
    *("text last", "text closest", "text closest three", "has text"),
    *("neighbours near", "neighbours followed", "neighbours popular"),
    *("year known", "year ahead", "year apart", "age known", "age", "not out yet", "genres recent"),
    *("backbone lead", "popularity apart"),
    *("user events", "gap", "sitting", "tempo", "delay"),
)
COLUMN: Final = {name: i for i, name in enumerate(SIGNALS)}
TEXT_COLUMNS: Final = slice(COLUMN["text last"], COLUMN["text closest three"] + 1)
RECENT_TEXT: Final = 20  # titles back whose text counts
ALIKE: Final = 40  # users asked
SHARED: Final = 20  # titles back by which users are found alike
_SUMS: Final = 10  # the dense signals that are sums over the history, first among the moving ones
TEXT, NEIGHBOURS, GENRES, YEARS, BACKBONE = range(_SUMS, _SUMS + 5)
_MOVING: Final = _SUMS + 5
_POPULAR_WEEK: Final = 2  # a column of the clocks
_DAY: Final = 86_400_000.0


class Titles(NamedTuple):
    """What the signals read of the titles, as of the start of a micro-batch: catalogue arrays, the audience's rings and
    static_VS, the STATIC signals; rare_V is 1 / sqrt(events + 1), share_VK a text neighbour's say (cosine cubed)."""

    candidate_V: NDArray[np.bool_]
    year_V: NDArray[np.float32]
    released_V: NDArray[np.int64]
    genres_VG: NDArray[np.int8]
    static_VS: NDArray[np.float32]
    rare_V: NDArray[np.float32]
    near_VK: NDArray[np.int32]
    share_VK: NDArray[np.float32]
    has_text_V: NDArray[np.bool_]
    actors_VA: NDArray[np.int32]
    recent_UR: NDArray[np.int32]
    many_U: NDArray[np.int64]


class Asked(NamedTuple):
    """One question: a user's known titles newest first, their times (ms) and liking, the moment, and who asks."""

    recent_L: NDArray[np.int32]
    times_L: NDArray[np.int64]
    liking_L: NDArray[np.float32]
    now: int
    slot: int  # the user's own slot in the audience, -1 for a stranger
    events: int  # of the user so far
    delay: int  # events that will have passed when the answer is read


class Scratch(NamedTuple):
    """Room that one question after another uses. moving_MV: the dense signals that differ from user to user ·
    overlap_U · mark_V · genres_2G: taste over the history and over the last five · user_Q: mean year, mean log
    popularity, events in the last hour, log seconds between events, log seconds since the last, weight of known years"""

    moving_MV: NDArray[np.float32]
    overlap_U: NDArray[np.float32]
    mark_V: NDArray[np.int8]
    genres_2G: NDArray[np.float32]
    user_Q: NDArray[np.float32]


def scratch(titles: int, users: int) -> Scratch:
    """Room for `titles` and `users`."""
    f = np.float32
    moving_MV, mark_V = np.zeros((_MOVING, titles), f), np.zeros(titles, np.int8)
    return Scratch(moving_MV, np.zeros(users, f), mark_V, np.zeros((2, 64), f), np.zeros(6, f))


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
def _find_alike(asked: Asked, titles: Titles, overlap: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
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
    for a in range(_SUMS):
        moving[a] = np.sqrt(moving[a])
    together = moving[4] * moving[4]
    for c in range(titles.rare_V.size):
        borrowed = np.float32(0.0)
        for k in range(titles.near_VK.shape[1]):
            other = titles.near_VK[c, k]
            if other >= 0:
                borrowed += titles.share_VK[c, k] * together[other]
        moving[NEIGHBOURS, c] = np.sqrt(borrowed)
        moving[GENRES, c] = _taste(titles.genres_VG[c], s.genres_2G[0])
        away = (titles.year_V[c] - s.user_Q[0]) / 8.0
        known = s.user_Q[5] > 0 and not np.isnan(away)
        moving[YEARS, c] = 1.0 / (1.0 + away * away) if known else 0.3


@njit(cache=True)
def _taste(genres: NDArray[np.int8], taste_G: NDArray[np.float32]) -> float:
    total, many = np.float32(0.0), 0
    for g in genres:
        if g < 0:
            break
        total += taste_G[g]
        many += 1
    return total / many if many else total


@njit(cache=True)
def gather(asked: Asked, titles: Titles, counters: Counters, s: Scratch) -> None:
    """Read everything about the asker into the scratch, but text and backbone: before `shortlist` and `read`."""
    s.moving_MV[:_SUMS] = 0.0
    _sum_pairs(asked, titles, counters, s.moving_MV)
    _ask_alike(asked, titles, s)
    _know_user(asked, titles, s)
    _finish(titles, s)


def shortlist(
    asked: Asked,
    titles: Titles,
    s: Scratch,
    weights_D: NDArray[np.float32],
    scores: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    blocked: NDArray[np.int32],
    most: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(rows of the `most` best candidates by the linear score, best first; score_V, -inf where no candidate).

    `scores` are static_V (the STATIC signals times their weights), text_V and backbone_V.
    """
    static_V, s.moving_MV[TEXT], s.moving_MV[BACKBONE] = scores
    score_V = static_V + weights_D[len(STATIC) :] @ s.moving_MV
    score_V[~titles.candidate_V] = -np.inf
    score_V[blocked[blocked >= 0]] = -np.inf
    best = np.argpartition(-score_V, most)[:most] if len(score_V) > most else np.arange(len(score_V))
    best = best[score_V[best] > -np.inf]
    return best[np.lexsort((best, -score_V[best]))], score_V


@njit(cache=True)
def read(
    asked: Asked, t: Titles, s: Scratch, rows: NDArray[np.int64], lead: float, out_CF: NDArray[np.float32]
) -> None:
    """Every signal of the given rows but the text columns, into out_CF; `lead` is the backbone's best score."""
    at, first, moving = len(STATIC) + _MOVING + 3, len(STATIC), s.moving_MV
    for i in range(rows.size):
        c, out = rows[i], out_CF[i]
        out[:first] = t.static_VS[c]
        for a in range(_MOVING):
            out[first + a] = moving[a, c]
        out[at] = t.has_text_V[c]
        near, followed, popular = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for k in range(t.near_VK.shape[1]):
            other = t.near_VK[c, k]
            if other >= 0:
                near += t.share_VK[c, k] * moving[3, other] ** 2
                followed += t.share_VK[c, k] * moving[1, other] ** 2
                popular += t.share_VK[c, k] * t.static_VS[other, _POPULAR_WEEK]
        out[at + 1], out[at + 2], out[at + 3] = np.sqrt(near), np.sqrt(followed), popular
        known = not np.isnan(t.year_V[c])
        ahead = (t.year_V[c] - s.user_Q[0]) / 10.0 if known and s.user_Q[5] > 0 else 0.0
        out[at + 4], out[at + 5], out[at + 6] = known, ahead, abs(ahead)
        dated = t.released_V[c] != np.iinfo(np.int64).min
        age = (asked.now - t.released_V[c]) / _DAY if dated else 0.0
        out[at + 7], out[at + 8], out[at + 9] = dated, np.log1p(max(age, 0.0)), dated and age < 0
        out[at + 10] = _taste(t.genres_VG[c], s.genres_2G[1])
        out[at + 11] = moving[BACKBONE, c] - lead
        out[at + 12] = t.static_VS[c, CLOCKS] - s.user_Q[1]
        out[at + 13] = np.log1p(float(asked.events))
        out[at + 14], out[at + 15], out[at + 16] = s.user_Q[4], np.log1p(s.user_Q[2]), s.user_Q[3]
        out[at + 17] = np.log1p(float(asked.delay))
