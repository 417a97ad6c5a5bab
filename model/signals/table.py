"""The signal table: the names of the ranker's input features, their columns, and the code that fills them.

There are two stages. The DENSE_SIGNALS are computed for all titles at once, and a linear score over them selects the
few hundred candidates of the shortlist. All SIGNALS are filled for the shortlist only. Counts enter as logarithms or
square roots, so that one scale serves small and large catalogs. The loops are compiled with numba: a user costs about
`history x neighbors` additions, whatever the number of users.

V titles · C candidates · F ranker signals, or the group of them that the name says: static_VF, summed_VF, matched_FV ·
U users · K text neighbors of a title · I recent users of a title · G genres of a title, or genre codes of a profile ·
Y release years from FIRST_YEAR · Q attributes of the query user
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.signals.inputs import Query, TitleSignals
from model.state.catalog import GENRE_CODES, UNKNOWN_DATE
from model.state.counters import CLOCKS
from model.state.interactions import InteractionIndex

_CLOCK_NAMES: Final = ("hour", "day", "week", "month", "year", "500 events", "5000 events")  # the counters' half-lives
STATIC_SIGNALS: Final = (
    *(f"popularity {name}" for name in _CLOCK_NAMES),
    *("popularity total", "no events", "one event", "hours since last event", "mean liking"),
)
_SUMMED: Final = (  # sums over pairs of titles and over other users' events
    *("transition last", "transition recent", "session cooccurrence recent", "session cooccurrence cosine"),
    *("cooccurrence recent", "cooccurrence all", "cooccurrence max", "cooccurrence liked"),
    *("knn users", "knn sessions", "knn ridge"),
    *("neighbor after", "neighbor before", "neighbor recency", "neighbor similarity", "neighbor breadth"),
)
_MATCHED: Final = (  # the match of each title with the user
    *("repeat recency", "repeat count"),  # of the title itself; it is a candidate only if repeats are allowed
    *("text recent", "text neighbor cooccurrence", "genre affinity", "year proximity", "year affinity"),
    *("activity bucket popularity", "backbone"),
)
DENSE_SIGNALS: Final = (*STATIC_SIGNALS, *_SUMMED, *_MATCHED)
SIGNALS: Final = (
    *DENSE_SIGNALS,
    *("text last", "text closest", "text closest three", "has text"),
    *("text neighbor session cooccurrence", "text neighbor transition", "text neighbor user similarity"),
    *("text neighbor knn ridge", "text neighbor popularity"),
    *("year known", "year difference", "year distance", "decades old"),
    *("release date known", "days since release", "unreleased", "genre affinity recent"),
    *("backbone minus top", "popularity difference", "title users similarity", "title users max"),
    *("user events", "user idle time", "session events", "inter-event time", "user mean liking", "horizon"),
)
COLUMN: Final = {name: i for i, name in enumerate(SIGNALS)}
TEXT_COLUMNS: Final = slice(COLUMN["text last"], COLUMN["text closest three"] + 1)
TEXT_TITLES: Final = 20  # recent titles with whose text a candidate's text is compared
SUMS: Final = len(_SUMMED)
MATCHES: Final = len(_MATCHED)
(  # columns of summed_VF
    TRANSITION_LAST, TRANSITION_RECENT, SESSION_COOCCURRENCE_RECENT, SESSION_COOCCURRENCE_COSINE, COOCCURRENCE_RECENT,
    COOCCURRENCE_ALL, COOCCURRENCE_MAX, COOCCURRENCE_LIKED, KNN_USERS, KNN_SESSIONS, KNN_RIDGE, NEIGHBOR_AFTER,
    NEIGHBOR_BEFORE, NEIGHBOR_RECENCY, NEIGHBOR_SIMILARITY, NEIGHBOR_BREADTH,
) = range(SUMS)  # fmt: skip
(  # rows of matched_FV
    REPEAT_RECENCY, REPEAT_COUNT, TEXT_RECENT, TEXT_NEIGHBOR_COOCCURRENCE, GENRE_AFFINITY, YEAR_PROXIMITY,
    YEAR_AFFINITY, BUCKET_POPULARITY, BACKBONE,
) = range(MATCHES)  # fmt: skip
(  # entries of user_Q
    USER_MEAN_YEAR, USER_MEAN_POPULARITY, USER_SESSION_EVENTS, USER_INTER_EVENT_TIME, USER_IDLE_TIME, USER_YEAR_WEIGHT,
    USER_MEAN_LIKING,
) = range(7)  # fmt: skip
PROFILE_ALL, PROFILE_RECENT = 0, 1  # rows of genre_profile_2G: over the whole history, and over the last titles
FIRST_YEAR: Final = 1890
YEARS: Final = 160  # of year_profile_Y
_CACHE_LINE_FLOATS: Final = 16
_DAY_MS: Final = 86_400_000.0
_YEAR_MS: Final = 365.25 * _DAY_MS
_HAS_TEXT: Final = COLUMN["has text"]
_TEXT_NEIGHBOR: Final = COLUMN["text neighbor session cooccurrence"]  # the first of the five
_DATES: Final = COLUMN["year known"]  # the first of the seven
_OTHER: Final = COLUMN["genre affinity recent"]  # the first of the single columns


class Scratch(NamedTuple):
    """Buffers of one query user's signals, reused for the next query."""

    summed_VF: NDArray[np.float32]  # a title's sums share a cache line, because titles come in random order
    matched_FV: NDArray[np.float32]
    similarity_U: NDArray[np.float32]  # similarity with the query user; 0 except for the users in touched_U
    touched_U: NDArray[np.int32]  # user indices, then -1
    visited_V: NDArray[np.int8]  # each function clears it before use
    weight_V: NDArray[np.float32]  # zero between uses
    genre_profile_2G: NDArray[np.float32]  # the user's liking by genre code
    year_profile_Y: NDArray[np.float32]  # the user's interest by release year
    user_Q: NDArray[np.float32]


def new_scratch(titles: int, users: int) -> Scratch:
    """Allocate buffers for `titles` titles and `users` users."""
    flat = np.zeros(titles * SUMS + _CACHE_LINE_FLOATS, np.float32)
    start = -flat.ctypes.data // flat.itemsize % _CACHE_LINE_FLOATS
    return Scratch(
        summed_VF=flat[start : start + titles * SUMS].reshape(titles, SUMS),
        matched_FV=np.zeros((MATCHES, titles), np.float32),
        similarity_U=np.zeros(users, np.float32),
        touched_U=np.full(users + 1, -1, np.int32),
        visited_V=np.zeros(titles, np.int8),
        weight_V=np.zeros(titles, np.float32),
        genre_profile_2G=np.zeros((2, GENRE_CODES), np.float32),
        year_profile_Y=np.zeros(YEARS, np.float32),
        user_Q=np.zeros(7, np.float32),
    )


def shortlist(
    titles: TitleSignals,
    scratch: Scratch,
    linear_weights_F: NDArray[np.float32],
    scores: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    blocked: NDArray[np.int32],
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of the `limit` best candidates by the linear score, best first, and score_V.

    `scores` are static_V (the STATIC_SIGNALS times their weights), text_V and backbone_V. score_V is -inf for titles
    that are blocked or no candidates.
    """
    static_V, scratch.matched_FV[TEXT_RECENT], scratch.matched_FV[BACKBONE] = scores
    summed_F, matched_F = np.split(linear_weights_F[len(STATIC_SIGNALS) :], [SUMS])
    score_V = static_V + scratch.summed_VF @ summed_F + matched_F @ scratch.matched_FV
    score_V[~titles.candidate_V] = -np.inf
    score_V[blocked[blocked >= 0]] = -np.inf
    least = np.partition(score_V, len(score_V) - limit)[len(score_V) - limit] if len(score_V) > limit else -np.inf
    best = np.flatnonzero((score_V >= least) & (score_V > -np.inf))
    return best[np.argsort(-score_V[best], kind="stable")][:limit], score_V


@njit(cache=True)
def mean_genre_affinity(
    genres_CG: NDArray[np.int16], profile_G: NDArray[np.float32], out_C: NDArray[np.float32]
) -> None:
    """Write the mean of the user's profile over each title's genres; 0 for a title without genres."""
    for c in range(out_C.size):
        total, count = np.float32(0.0), np.float32(0.0)
        for g in range(genres_CG.shape[1]):
            if genres_CG[c, g] < 0:
                break
            total += profile_G[genres_CG[c, g]]
            count += np.float32(1.0)
        out_C[c] = total / max(count, np.float32(1.0))


@njit(cache=True)
def fill_signals(
    query: Query,
    titles: TitleSignals,
    scratch: Scratch,
    rows_C: NDArray[np.int64],
    top_score: float,
    out_CF: NDArray[np.float32],
) -> None:
    """Write all signals of the given rows except the text columns; `top_score` is the backbone's best score."""
    summed, matched, static_VF = len(STATIC_SIGNALS), len(STATIC_SIGNALS) + SUMS, titles.static_VF
    summed_VF, matched_FV, has_text_V, user_Q = scratch.summed_VF, scratch.matched_FV, titles.has_text_V, scratch.user_Q
    for c in range(rows_C.size):
        row = rows_C[c]
        for f in range(len(STATIC_SIGNALS)):
            out_CF[c, f] = static_VF[row, f]
        for f in range(SUMS):
            out_CF[c, summed + f] = summed_VF[row, f]
        for f in range(MATCHES):
            out_CF[c, matched + f] = matched_FV[f, row]
        out_CF[c, _HAS_TEXT] = has_text_V[row]
    _fill_text_neighbors(
        titles.text_neighbors_VK,
        titles.text_weight_VK,
        summed_VF,
        rows_C,
        out_CF[:, _TEXT_NEIGHBOR : _TEXT_NEIGHBOR + 4],
    )
    out_CF[:, _TEXT_NEIGHBOR + 4] = titles.text_neighbor_popularity_V[rows_C]
    _fill_dates(query.now, titles.year_V, titles.released_V, user_Q, rows_C, out_CF[:, _DATES : _DATES + 7])
    mean_genre_affinity(titles.genres_VG[rows_C], scratch.genre_profile_2G[PROFILE_RECENT], out_CF[:, _OTHER])
    for c in range(rows_C.size):
        out_CF[c, _OTHER + 1] = matched_FV[BACKBONE, rows_C[c]] - top_score
        out_CF[c, _OTHER + 2] = static_VF[rows_C[c], CLOCKS] - user_Q[USER_MEAN_POPULARITY]
    _fill_title_users(
        query.user_index, titles.interactions, scratch.similarity_U, rows_C, out_CF[:, _OTHER + 3 : _OTHER + 5]
    )
    out_CF[:, _OTHER + 5] = np.log1p(float(query.user_events))
    out_CF[:, _OTHER + 6], out_CF[:, _OTHER + 7] = user_Q[USER_IDLE_TIME], np.log1p(user_Q[USER_SESSION_EVENTS])
    out_CF[:, _OTHER + 8], out_CF[:, _OTHER + 9] = user_Q[USER_INTER_EVENT_TIME], user_Q[USER_MEAN_LIKING]
    out_CF[:, _OTHER + 10] = np.log1p(float(query.horizon))


@njit(cache=True)
def _fill_text_neighbors(
    text_neighbors_VK: NDArray[np.int32],
    text_weight_VK: NDArray[np.float32],
    summed_VF: NDArray[np.float32],
    rows_C: NDArray[np.int64],
    out_C4: NDArray[np.float32],
) -> None:
    """Write the weighted means of four signals over each title's text neighbors."""
    for c in range(rows_C.size):
        sum_4 = np.zeros(4, np.float32)
        for k in range(text_neighbors_VK.shape[1]):
            other, weight = text_neighbors_VK[rows_C[c], k], text_weight_VK[rows_C[c], k]
            if other >= 0:
                sum_4[0] += weight * summed_VF[other, SESSION_COOCCURRENCE_COSINE] ** 2
                sum_4[1] += weight * summed_VF[other, TRANSITION_RECENT] ** 2
                sum_4[2] += weight * summed_VF[other, NEIGHBOR_SIMILARITY] ** 2
                sum_4[3] += weight * summed_VF[other, KNN_RIDGE] ** 2
        for i in range(4):
            out_C4[c, i] = np.sqrt(sum_4[i])


@njit(cache=True)
def _fill_dates(
    now: int,
    year_V: NDArray[np.float32],
    released_V: NDArray[np.int64],
    user_Q: NDArray[np.float32],
    rows_C: NDArray[np.int64],
    out_C7: NDArray[np.float32],
) -> None:
    """Write a title's release year relative to the user's mean and to the present, and the time since its release."""
    for c in range(rows_C.size):
        year, released = year_V[rows_C[c]], released_V[rows_C[c]]
        known, dated = not np.isnan(year), released != UNKNOWN_DATE
        decades = (year - user_Q[USER_MEAN_YEAR]) / 10.0 if known and user_Q[USER_YEAR_WEIGHT] > 0 else 0.0
        days = (now - released) / _DAY_MS if dated else 0.0
        out_C7[c, 0], out_C7[c, 1], out_C7[c, 2] = known, decades, abs(decades)
        out_C7[c, 3] = (now / _YEAR_MS + 1970.0 - year) / 10.0 if known else -1.0
        out_C7[c, 4], out_C7[c, 5], out_C7[c, 6] = dated, np.log1p(max(days, 0.0)), dated and days < 0


@njit(cache=True)
def _fill_title_users(
    user_index: int,
    interactions: InteractionIndex,
    similarity_U: NDArray[np.float32],
    rows_C: NDArray[np.int64],
    out_C2: NDArray[np.float32],
) -> None:
    """Write the similarity of a title's recent users: sum by root of their number, and maximum."""
    title_users_VI, title_count_V = interactions.title_users_VI, interactions.title_count_V
    size = title_users_VI.shape[1]
    for c in range(rows_C.size):
        total, largest, count = np.float32(0.0), np.float32(0.0), 0
        for back in range(1, min(title_count_V[rows_C[c]], size) + 1):
            u = title_users_VI[rows_C[c], (title_count_V[rows_C[c]] - back) % size]
            if u >= 0 and u != user_index:
                total += similarity_U[u]
                largest = max(largest, similarity_U[u])
                count += 1
        out_C2[c, 0], out_C2[c, 1] = np.sqrt(total / np.sqrt(count + 1.0)), np.sqrt(largest)
