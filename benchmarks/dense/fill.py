"""The dense reference's buffers of all titles, its shortlist of all titles, and the signals of the shortlist.

V titles · C candidates · F ranker signals, or the kind of them that the name says: static_VF, summed_VF, matched_FV ·
U users · K text neighbors of a title · I recent users of a title · G genres of a title, or genre codes of a profile ·
Y release years from FIRST_YEAR
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.dense.inputs import DenseTitleSignals, Query
from model.signals.table import DENSE, MATCHES, STATICS, SUMS, Candidate, Matched, Static, Summed
from model.state.catalog import GENRE_CODES, UNKNOWN_DATE
from model.state.interactions import InteractionIndex

PROFILE_ALL, PROFILE_RECENT = 0, 1  # rows of genre_profile_2G: over the whole history, and over the last titles
FIRST_YEAR: Final = 1890
YEARS: Final = 160  # of year_profile_Y
_CACHE_LINE_FLOATS: Final = 16
_DAY_MS: Final = 86_400_000.0
_YEAR_MS: Final = 365.25 * _DAY_MS


class DenseScratch(NamedTuple):
    """Buffers of one query user's signals, reused for the next query."""

    summed_VF: NDArray[np.float32]  # a title's sums share a cache line, because titles come in random order
    matched_FV: NDArray[np.float32]
    similarity_U: NDArray[np.float32]  # similarity with the query user; 0 except for the users in touched_U
    touched_U: NDArray[np.int32]  # user indices, then -1
    visited_V: NDArray[np.int8]  # each function clears it before use
    weight_V: NDArray[np.float32]  # zero between uses
    genre_profile_2G: NDArray[np.float32]  # the user's liking by genre code
    year_profile_Y: NDArray[np.float32]  # the user's interest by release year


class DenseUserFacts(NamedTuple):
    """What is known of the query user besides the titles. Single precision, as the signals."""

    mean_year: np.float32  # release year of the user's titles, weighted by recency
    year_weight: np.float32  # sum of these weights; 0: no title has a known year
    mean_popularity: np.float32  # `popularity total` of the user's titles, weighted by recency
    session_events: np.float32  # events within the present session
    inter_event_time: np.float32  # log(1 + s), mean over the last events
    idle_time: np.float32  # log(1 + s) since the last event
    mean_liking: np.float32


class DenseUserSignals(NamedTuple):
    """The signals of one query user for all titles. The arrays are buffers: valid until the next query is gathered."""

    query: Query
    summed_VF: NDArray[np.float32]
    matched_FV: NDArray[np.float32]
    similarity_U: NDArray[np.float32]
    genre_profile_2G: NDArray[np.float32]
    facts: DenseUserFacts


class DenseScores(NamedTuple):
    """DenseScores of all titles that come from outside the stream state."""

    static_V: NDArray[np.float32]  # the static signals times their linear weights
    text_V: NDArray[np.float32]  # cosine with the user's recent texts
    backbone_V: NDArray[np.float32]


def new_scratch(titles: int, users: int) -> DenseScratch:
    """Allocate buffers for `titles` titles and `users` users."""
    flat = np.zeros(titles * SUMS + _CACHE_LINE_FLOATS, np.float32)
    start = -flat.ctypes.data // flat.itemsize % _CACHE_LINE_FLOATS
    return DenseScratch(
        summed_VF=flat[start : start + titles * SUMS].reshape(titles, SUMS),
        matched_FV=np.zeros((MATCHES, titles), np.float32),
        similarity_U=np.zeros(users, np.float32),
        touched_U=np.full(users + 1, -1, np.int32),
        visited_V=np.zeros(titles, np.int8),
        weight_V=np.zeros(titles, np.float32),
        genre_profile_2G=np.zeros((2, GENRE_CODES), np.float32),
        year_profile_Y=np.zeros(YEARS, np.float32),
    )


def shortlist(
    titles: DenseTitleSignals,
    user: DenseUserSignals,
    scores: DenseScores,
    linear_weights_F: NDArray[np.float32],
    blocked: NDArray[np.int32],
    limit: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of the `limit` best candidates by the linear score, best first, and score_V.

    score_V is -inf for titles that are blocked or no candidates. The text and backbone scores become signals of `user`.
    """
    user.matched_FV[Matched.TEXT_RECENT], user.matched_FV[Matched.BACKBONE] = scores.text_V, scores.backbone_V
    summed_F, matched_F = np.split(linear_weights_F[STATICS:], [SUMS])
    score_V = scores.static_V + user.summed_VF @ summed_F + matched_F @ user.matched_FV
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
    user: DenseUserSignals,
    titles: DenseTitleSignals,
    rows_C: NDArray[np.int64],
    top_score: float,
    out_CF: NDArray[np.float32],
) -> None:
    """Write all signals of the given rows except the text columns; `top_score` is the backbone's best score."""
    static_VF, summed_VF, matched_FV, facts = titles.static_VF, user.summed_VF, user.matched_FV, user.facts
    candidate_CF = out_CF[:, DENSE:]
    for c in range(rows_C.size):
        row = rows_C[c]
        for f in range(STATICS):
            out_CF[c, f] = static_VF[row, f]
        for f in range(SUMS):
            out_CF[c, STATICS + f] = summed_VF[row, f]
        for f in range(MATCHES):
            out_CF[c, STATICS + SUMS + f] = matched_FV[f, row]
        candidate_CF[c, Candidate.HAS_TEXT] = titles.has_text_V[row]
        candidate_CF[c, Candidate.BACKBONE_MINUS_TOP] = matched_FV[Matched.BACKBONE, row] - top_score
        popularity = static_VF[row, Static.POPULARITY_TOTAL]
        candidate_CF[c, Candidate.POPULARITY_DIFFERENCE] = popularity - facts.mean_popularity
    _fill_text_neighbors(titles, summed_VF, rows_C, candidate_CF)
    _fill_dates(user.query.now, titles, facts, rows_C, candidate_CF)
    recent_C = candidate_CF[:, Candidate.GENRE_AFFINITY_RECENT]
    mean_genre_affinity(titles.genres_VG[rows_C], user.genre_profile_2G[PROFILE_RECENT], recent_C)
    _fill_title_users(user.query.user_index, titles.interactions, user.similarity_U, rows_C, candidate_CF)
    candidate_CF[:, Candidate.USER_EVENTS] = np.log1p(float(user.query.user_events))
    candidate_CF[:, Candidate.USER_IDLE_TIME] = facts.idle_time
    candidate_CF[:, Candidate.SESSION_EVENTS] = np.log1p(facts.session_events)
    candidate_CF[:, Candidate.INTER_EVENT_TIME] = facts.inter_event_time
    candidate_CF[:, Candidate.USER_MEAN_LIKING] = facts.mean_liking
    candidate_CF[:, Candidate.HORIZON] = np.log1p(float(user.query.horizon))


@njit(cache=True)
def _fill_text_neighbors(
    titles: DenseTitleSignals, summed_VF: NDArray[np.float32], rows_C: NDArray[np.int64], out_CF: NDArray[np.float32]
) -> None:
    """Write the weighted means of signals over each title's text neighbors."""
    text_neighbors_VK, text_weight_VK = titles.text_neighbors_VK, titles.text_weight_VK
    for c in range(rows_C.size):
        session, transition = np.float32(0.0), np.float32(0.0)
        similarity, ridge = np.float32(0.0), np.float32(0.0)
        for k in range(text_neighbors_VK.shape[1]):
            other, weight = text_neighbors_VK[rows_C[c], k], text_weight_VK[rows_C[c], k]
            if other >= 0:
                session += weight * summed_VF[other, Summed.SESSION_COOCCURRENCE_COSINE] ** 2
                transition += weight * summed_VF[other, Summed.TRANSITION_RECENT] ** 2
                similarity += weight * summed_VF[other, Summed.NEIGHBOR_SIMILARITY] ** 2
                ridge += weight * summed_VF[other, Summed.KNN_RIDGE] ** 2
        out_CF[c, Candidate.TEXT_NEIGHBOR_SESSION_COOCCURRENCE] = np.sqrt(session)
        out_CF[c, Candidate.TEXT_NEIGHBOR_TRANSITION] = np.sqrt(transition)
        out_CF[c, Candidate.TEXT_NEIGHBOR_USER_SIMILARITY] = np.sqrt(similarity)
        out_CF[c, Candidate.TEXT_NEIGHBOR_KNN_RIDGE] = np.sqrt(ridge)
        out_CF[c, Candidate.TEXT_NEIGHBOR_POPULARITY] = titles.text_neighbor_popularity_V[rows_C[c]]


@njit(cache=True)
def _fill_dates(
    now: int, titles: DenseTitleSignals, facts: DenseUserFacts, rows_C: NDArray[np.int64], out_CF: NDArray[np.float32]
) -> None:
    """Write a title's release year relative to the user's mean and to the present, and the time since its release."""
    year_V, released_V = titles.year_V, titles.released_V
    for c in range(rows_C.size):
        year, released = year_V[rows_C[c]], released_V[rows_C[c]]
        known, dated = not np.isnan(year), released != UNKNOWN_DATE
        decades = (year - facts.mean_year) / 10.0 if known and facts.year_weight > 0 else 0.0
        days = (now - released) / _DAY_MS if dated else 0.0
        out_CF[c, Candidate.YEAR_KNOWN] = known
        out_CF[c, Candidate.YEAR_DIFFERENCE], out_CF[c, Candidate.YEAR_DISTANCE] = decades, abs(decades)
        out_CF[c, Candidate.DECADES_OLD] = (now / _YEAR_MS + 1970.0 - year) / 10.0 if known else -1.0
        out_CF[c, Candidate.RELEASE_DATE_KNOWN] = dated
        out_CF[c, Candidate.DAYS_SINCE_RELEASE] = np.log1p(max(days, 0.0))
        out_CF[c, Candidate.UNRELEASED] = dated and days < 0


@njit(cache=True)
def _fill_title_users(
    user_index: int,
    interactions: InteractionIndex,
    similarity_U: NDArray[np.float32],
    rows_C: NDArray[np.int64],
    out_CF: NDArray[np.float32],
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
        out_CF[c, Candidate.TITLE_USERS_SIMILARITY] = np.sqrt(total / np.sqrt(count + 1.0))
        out_CF[c, Candidate.TITLE_USERS_MAX] = np.sqrt(largest)
