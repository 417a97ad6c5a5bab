"""What the ranker sees of a title for a user: streaming counts, text, taste and tempo, read at one moment.

Two depths. The first DENSE signals can be had for every title at once and pick the few hundred candidates; all SIGNALS
are read for the candidates only. Counts enter as logs or shares so that one scale serves small and large catalogues.
Loops are compiled (numba): a user costs some `history x slots` additions, whatever the number of users.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.counters import CLOCKS

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
SUMS: Final = 10  # the dense signals that are sums over the history, first among the moving ones
TEXT, NEIGHBOURS, GENRES, YEARS, BACKBONE = range(SUMS, SUMS + 5)
_MOVING: Final = SUMS + 5
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
    popularity, events in the last hour, log seconds between events, log seconds since the last, weight of known
    years"""

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
def taste_of(genres: NDArray[np.int8], taste_G: NDArray[np.float32]) -> float:
    total, many = np.float32(0.0), 0
    for g in genres:
        if g < 0:
            break
        total += taste_G[g]
        many += 1
    return float(total / many) if many else 0.0


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
        out[at + 10] = taste_of(t.genres_VG[c], s.genres_2G[1])
        out[at + 11] = moving[BACKBONE, c] - lead
        out[at + 12] = t.static_VS[c, CLOCKS] - s.user_Q[1]
        out[at + 13] = np.log1p(float(asked.events))
        out[at + 14], out[at + 15], out[at + 16] = s.user_Q[4], np.log1p(s.user_Q[2]), s.user_Q[3]
        out[at + 17] = np.log1p(float(asked.delay))
