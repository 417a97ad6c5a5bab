"""What the ranker sees of a title for a user: streaming counts, text, taste and tempo, read at one moment.

Two depths. The first DENSE signals can be had for every title at once and pick the few hundred candidates; all SIGNALS
are read for the candidates only. Counts enter as logs or roots so that one scale serves small and large catalogues.
Loops are compiled (numba): a user costs some `history x slots` additions, whatever the number of users.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.state.catalog import CODES
from model.state.counters import CLOCKS
from model.state.interactions import InteractionIndex

STATIC: Final = (
    *(f"popular {c}" for c in range(CLOCKS)),
    *("popular ever", "no event yet", "one event", "quiet", "liked"),
)
_SUMMED: Final = (
    *("followed last", "followed recent", "near recent", "near share", "together recent", "together all"),
    *("together most", "together liked", "alike users", "alike sittings", "alike fitted"),
    *("around after", "around before", "around lately", "around alike", "around breadth"),
)
_SUITED: Final = (
    *("taken lately", "taken often"),  # by the asker: only where people come back to a title can it be a candidate
    *("text recent", "text neighbours", "genres", "years", "eras", "stage", "backbone"),
)
DENSE: Final = (*STATIC, *_SUMMED, *_SUITED)
_BORROWED: Final = (
    *("neighbours near", "neighbours followed", "neighbours around", "neighbours alike", "neighbours popular"),
)
SIGNALS: Final = (
    *DENSE,
    *("text last", "text closest", "text closest three", "has text"),
    *_BORROWED,
    *("year known", "year ahead", "year apart", "years old", "age known", "age", "not out yet", "genres recent"),
    *("backbone lead", "popularity apart", "takers alike", "takers most"),
    *("user events", "gap", "sitting", "tempo", "user liking", "delay"),
)
COLUMN: Final = {name: i for i, name in enumerate(SIGNALS)}
TEXT_COLUMNS: Final = slice(COLUMN["text last"], COLUMN["text closest three"] + 1)
COMPARED: Final = 20  # titles back that a candidate's text is compared with
FIRST_YEAR: Final = 1890
_LINE: Final = 16  # float32 of a cache line
SUMS: Final = len(_SUMMED)
SUITS: Final = len(_SUITED)
(
    FOLLOWED_LAST, FOLLOWED_RECENT, NEAR_RECENT, NEAR_SHARE, TOGETHER_RECENT, TOGETHER_ALL, TOGETHER_MOST,
    TOGETHER_LIKED, ALIKE_USERS, ALIKE_SITTINGS, ALIKE_FITTED, AROUND_AFTER, AROUND_BEFORE, AROUND_LATELY,
    AROUND_ALIKE, AROUND_BREADTH,
) = range(SUMS)  # fmt: skip
TAKEN_LATELY, TAKEN_OFTEN, TEXT, NEIGHBORS, GENRES, YEARS, ERAS, STAGE, BACKBONE = range(SUITS)
POPULAR_WEEK: Final = 2  # a column of the clocks
_DAY: Final = 86_400_000.0  # ms
_YEAR: Final = 365.25 * _DAY
_UNDATED: Final = np.iinfo(np.int64).min


class TitleSignals(NamedTuple):
    """What the signals read of the titles, as of the start of a micro-batch: catalogue arrays and counts. static_VS are
    the STATIC signals; rare_V is 1 / sqrt(events + 1), said_V what a shared title says of two users: 1 / (1 + log(1 +
    events)); share_VK a text neighbour's say (cosine cubed), near_popular_V how popular these neighbours are; stage_BV
    log popularity by stage of a user's life. trail is the audience's own and shows what is added."""

    candidate_V: NDArray[np.bool_]
    year_V: NDArray[np.float32]
    released_V: NDArray[np.int64]
    genres_VG: NDArray[np.int16]
    static_VS: NDArray[np.float32]
    stage_BV: NDArray[np.float32]
    inv_sqrt_count_V: NDArray[np.float32]
    idf_V: NDArray[np.float32]
    near_VK: NDArray[np.int32]
    share_VK: NDArray[np.float32]
    near_popular_V: NDArray[np.float32]
    has_text_V: NDArray[np.bool_]
    interactions: InteractionIndex


class Query(NamedTuple):
    """One question: a user's known titles newest first, their times (ms) and liking, the moment, and who asks."""

    recent_L: NDArray[np.int32]
    times_L: NDArray[np.int64]
    liking_L: NDArray[np.float32]
    now: int
    user_index: int  # the user's own slot in the audience, -1 for a stranger
    events: int  # of the user so far
    delay: int  # events that will have passed when the answer is read


class Scratch(NamedTuple):
    """Room that one question after another uses. sums_VM: signals that are summed over events, a title's in one line
    of the cache, for titles come in no order · suited_MV: those that are read off all titles · overlap_U: what users
    share with the asker, of the slots in touched_N up to a -1 · mark_V: cleared by who uses it · weight_V: zero between
    uses · genres_2G: taste over the history and over the last five · era_Y: taste in years from FIRST_YEAR · user_Q:
    mean year, mean log popularity, events in the last hour, log seconds between events, log seconds since the last,
    weight of known years, mean liking"""

    sums_VM: NDArray[np.float32]
    suited_MV: NDArray[np.float32]
    overlap_U: NDArray[np.float32]
    touched_N: NDArray[np.int32]
    mark_V: NDArray[np.int8]
    weight_V: NDArray[np.float32]
    genres_2G: NDArray[np.float32]
    era_Y: NDArray[np.float32]
    user_Q: NDArray[np.float32]


def scratch(titles: int, users: int) -> Scratch:
    """Room for `titles` and `users`."""
    f = np.float32
    flat = np.zeros(titles * SUMS + _LINE, f)
    start = -flat.ctypes.data // flat.itemsize % _LINE
    sums_VM, suited_MV = flat[start : start + titles * SUMS].reshape(titles, SUMS), np.zeros((SUITS, titles), f)
    mark_V, weight_V, touched_N = np.zeros(titles, np.int8), np.zeros(titles, f), np.full(users + 1, -1, np.int32)
    return Scratch(
        sums_VM, suited_MV, np.zeros(users, f), touched_N, mark_V, weight_V, np.zeros((2, CODES), f), np.zeros(160, f),
        np.zeros(7, f),
    )  # fmt: skip


def shortlist(
    query: Query,
    titles: TitleSignals,
    s: Scratch,
    weights_D: NDArray[np.float32],
    scores: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    blocked: NDArray[np.int32],
    most: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(rows of the `most` best candidates by the linear score, best first; score_V, -inf where no candidate).

    `scores` are static_V (the STATIC signals times their weights), text_V and backbone_V.
    """
    static_V, s.suited_MV[TEXT], s.suited_MV[BACKBONE] = scores
    sums_M, suited_M = np.split(weights_D[len(STATIC) :], [SUMS])
    score_V = static_V + s.sums_VM @ sums_M + suited_M @ s.suited_MV
    score_V[~titles.candidate_V] = -np.inf
    score_V[blocked[blocked >= 0]] = -np.inf
    least = np.partition(score_V, len(score_V) - most)[len(score_V) - most] if len(score_V) > most else -np.inf
    best = np.flatnonzero((score_V >= least) & (score_V > -np.inf))
    return best[np.argsort(-score_V[best], kind="stable")][:most], score_V


@njit(cache=True)
def suit_genres(genres_CG: NDArray[np.int16], taste_G: NDArray[np.float32], out_C: NDArray[np.float32]) -> None:
    """The mean taste for each title's genres; 0 without any."""
    for c in range(out_C.size):
        total, many = np.float32(0.0), np.float32(0.0)
        for k in range(genres_CG.shape[1]):
            if genres_CG[c, k] < 0:
                break
            total += taste_G[genres_CG[c, k]]
            many += np.float32(1.0)
        out_C[c] = total / max(many, np.float32(1.0))


@njit(cache=True)
def read(
    query: Query, t: TitleSignals, s: Scratch, rows: NDArray[np.int64], top_score: float, out_CF: NDArray[np.float32]
) -> None:
    """Every signal of the given rows but the text columns, into out_CF; `top_score` is the backbone's best."""
    at, first, second, static_VS = len(DENSE) + 3, len(STATIC), len(STATIC) + SUMS, t.static_VS
    sums_VM, suited_MV, has_text_V = s.sums_VM, s.suited_MV, t.has_text_V
    for i in range(rows.size):
        row = rows[i]
        for a in range(first):
            out_CF[i, a] = static_VS[row, a]
        for a in range(SUMS):
            out_CF[i, first + a] = sums_VM[row, a]
        for a in range(SUITS):
            out_CF[i, second + a] = suited_MV[a, row]
        out_CF[i, at] = has_text_V[row]
    _read_borrowed(t.near_VK, t.share_VK, sums_VM, rows, out_CF[:, at + 1 : at + 5])
    out_CF[:, at + 5] = t.near_popular_V[rows]
    _read_dates(query.now, t.year_V, t.released_V, s.user_Q, rows, out_CF[:, at + 6 : at + 13])
    suit_genres(t.genres_VG[rows], s.genres_2G[1], out_CF[:, at + 13])
    for i in range(rows.size):
        out_CF[i, at + 14] = suited_MV[BACKBONE, rows[i]] - top_score
        out_CF[i, at + 15] = static_VS[rows[i], CLOCKS] - s.user_Q[1]
    _read_takers(query.user_index, t.interactions, s.overlap_U, rows, out_CF[:, at + 16 : at + 18])
    out_CF[:, at + 18] = np.log1p(float(query.events))
    out_CF[:, at + 19], out_CF[:, at + 20] = s.user_Q[4], np.log1p(s.user_Q[2])
    out_CF[:, at + 21], out_CF[:, at + 22] = s.user_Q[3], s.user_Q[6]
    out_CF[:, at + 23] = np.log1p(float(query.delay))


@njit(cache=True)
def _read_borrowed(
    near_VK: NDArray[np.int32],
    share_VK: NDArray[np.float32],
    sums_VM: NDArray[np.float32],
    rows: NDArray[np.int64],
    out_C4: NDArray[np.float32],
) -> None:
    """What the text neighbours of a title have earned."""
    for i in range(rows.size):
        sum_4 = np.zeros(4, np.float32)
        for k in range(near_VK.shape[1]):
            other, share = near_VK[rows[i], k], share_VK[rows[i], k]
            if other >= 0:
                sum_4[0] += share * sums_VM[other, NEAR_SHARE] ** 2
                sum_4[1] += share * sums_VM[other, FOLLOWED_RECENT] ** 2
                sum_4[2] += share * sums_VM[other, AROUND_ALIKE] ** 2
                sum_4[3] += share * sums_VM[other, ALIKE_FITTED] ** 2
        for a in range(4):
            out_C4[i, a] = np.sqrt(sum_4[a])


@njit(cache=True)
def _read_dates(
    now: int,
    year_V: NDArray[np.float32],
    released_V: NDArray[np.int64],
    user_Q: NDArray[np.float32],
    rows: NDArray[np.int64],
    out_C7: NDArray[np.float32],
) -> None:
    """A title's year beside the user's and the present one; its age, where the metadata gives the date."""
    for i in range(rows.size):
        year, released = year_V[rows[i]], released_V[rows[i]]
        known, dated = not np.isnan(year), released != _UNDATED
        ahead = (year - user_Q[0]) / 10.0 if known and user_Q[5] > 0 else 0.0
        age = (now - released) / _DAY if dated else 0.0
        out_C7[i, 0], out_C7[i, 1], out_C7[i, 2] = known, ahead, abs(ahead)
        out_C7[i, 3] = (now / _YEAR + 1970.0 - year) / 10.0 if known else -1.0
        out_C7[i, 4], out_C7[i, 5], out_C7[i, 6] = dated, np.log1p(max(age, 0.0)), dated and age < 0


@njit(cache=True)
def _read_takers(
    user_index: int,
    interactions: InteractionIndex,
    overlap_U: NDArray[np.float32],
    rows: NDArray[np.int64],
    out_C2: NDArray[np.float32],
) -> None:
    """How much those who took the title lately share with the asker: in all, by the root of their number, and the
    most."""
    title_users_VA, title_count_V, takers = (
        interactions.title_users_VA,
        interactions.title_count_V,
        interactions.title_users_VA.shape[1],
    )
    for i in range(rows.size):
        total, most, many = np.float32(0.0), np.float32(0.0), 0
        for back in range(1, min(title_count_V[rows[i]], takers) + 1):
            u = title_users_VA[rows[i], (title_count_V[rows[i]] - back) % takers]
            if u >= 0 and u != user_index:
                total += overlap_U[u]
                most = max(most, overlap_U[u])
                many += 1
        out_C2[i, 0], out_C2[i, 1] = np.sqrt(total / np.sqrt(many + 1.0)), np.sqrt(most)
