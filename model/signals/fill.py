"""The buffers of one user's signals, and the code that turns them into the signals of single candidates.

The loops are compiled with numba: a user costs about `history x neighbors` additions, whatever the number of users and
of titles.

V titles · P titles of the pool · C candidates · F ranker signals, or the kind of them that the name says: static_VF ·
U users · K text neighbors of a title · I recent users of a title · G genres of a title, or genre codes of a profile ·
Y release years from FIRST_YEAR
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.signals.inputs import Query, TitleSignals, text_weights
from model.signals.pool import Pool, new_pool
from model.signals.table import DENSE, MATCHES, STATICS, SUMS, Candidate, Matched, Static, Summed
from model.state.catalog import GENRE_CODES, UNKNOWN_DATE
from model.state.interactions import InteractionIndex

PROFILE_ALL, PROFILE_RECENT = 0, 1  # rows of genre_profile_2G: over the whole history, and over the last titles
FIRST_YEAR: Final = 1890
YEARS: Final = 160  # of year_profile_Y: until 2049
TITLE_USERS_PRIOR: Final = 1.0  # users added to a title's recent users, by whose root their similarity is divided
_DAY_MS: Final = 86_400_000.0
_YEAR_MS: Final = 365.25 * _DAY_MS


class Scratch(NamedTuple):
    """Buffers of one query user's signals, reused for the next query."""

    pool: Pool
    similarity_U: NDArray[np.float32]  # similarity with the query user; 0 except for the users in touched_U
    touched_U: NDArray[np.int32]  # user indices, then -1
    weight_P: NDArray[np.float32]  # zero between uses
    idf_P: NDArray[np.float32]
    genre_profile_2G: NDArray[np.float32]  # the user's liking by genre code
    year_profile_Y: NDArray[np.float32]  # the user's interest by release year


class UserFacts(NamedTuple):
    """What is known of the query user besides the titles. Single precision, as the signals."""

    mean_year: np.float32  # release year of the user's titles, weighted by recency
    year_weight: np.float32  # sum of these weights; 0: no title has a known year
    mean_popularity: np.float32  # `popularity total` of the user's titles, weighted by recency
    session_events: np.float32  # events within the present session
    inter_event_time: np.float32  # log(1 + s), mean over the last events
    idle_time: np.float32  # log(1 + s) since the last event
    mean_liking: np.float32


class UserSignals(NamedTuple):
    """The signals of one query user. The arrays are buffers: valid until the next query is gathered."""

    query: Query
    pool: Pool
    reached: int  # titles at the start of the pool that the user's events reach; others join for one ranking
    similarity_U: NDArray[np.float32]
    genre_profile_2G: NDArray[np.float32]
    year_profile_Y: NDArray[np.float32]
    facts: UserFacts


def new_scratch(titles: int, users: int) -> Scratch:
    """Allocate buffers for `titles` titles and `users` users."""
    pool = new_pool(titles)
    return Scratch(
        pool=pool,
        similarity_U=np.zeros(users, np.float32),
        touched_U=np.full(users + 1, -1, np.int32),
        weight_P=np.zeros(len(pool.row_P), np.float32),
        idf_P=np.zeros(len(pool.row_P), np.float32),
        genre_profile_2G=np.zeros((2, GENRE_CODES), np.float32),
        year_profile_Y=np.zeros(YEARS, np.float32),
    )


@njit(cache=True)
def mean_genre_affinity(
    genres_VG: NDArray[np.int16], row_C: NDArray[np.integer], profile_G: NDArray[np.float32], out_C: NDArray[np.float32]
) -> None:
    """Write the mean of the user's profile over each title's genres; 0 for a title without genres."""
    for c in range(out_C.size):
        total, count = np.float32(0.0), np.float32(0.0)
        for g in range(genres_VG.shape[1]):
            code = genres_VG[row_C[c], g]
            if code < 0:
                break
            total += profile_G[code]
            count += np.float32(1.0)
        out_C[c] = total / max(count, np.float32(1.0))


@njit(cache=True)
def fill_signals(
    user: UserSignals,
    titles: TitleSignals,
    rows_C: NDArray[np.int64],
    top_score: float,
    out_CF: NDArray[np.float32],
) -> None:
    """Write all signals of the given rows except the text columns; `top_score` is the backbone's best score.

    The rows must be in the pool.
    """
    static_VF, pool, facts = titles.static_VF, user.pool, user.facts
    summed_PF, matched_FP = pool.summed_PF, pool.matched_FP
    candidate_CF = out_CF[:, DENSE:]
    for c in range(rows_C.size):
        row, p = rows_C[c], pool.slot_V[rows_C[c]]
        for f in range(STATICS):
            out_CF[c, f] = static_VF[row, f]
        for f in range(SUMS):
            out_CF[c, STATICS + f] = summed_PF[p, f]
        for f in range(MATCHES):
            out_CF[c, STATICS + SUMS + f] = matched_FP[f, p]
        candidate_CF[c, Candidate.HAS_TEXT] = titles.inverse_distance_V[row] > 0
        candidate_CF[c, Candidate.BACKBONE_MINUS_TOP] = matched_FP[Matched.BACKBONE, p] - top_score
        popularity = static_VF[row, Static.POPULARITY_TOTAL]
        candidate_CF[c, Candidate.POPULARITY_DIFFERENCE] = popularity - facts.mean_popularity
    _fill_text_neighbors(titles, pool, rows_C, candidate_CF)
    _fill_dates(user.query.now, titles, facts, rows_C, candidate_CF)
    recent_C = candidate_CF[:, Candidate.GENRE_AFFINITY_RECENT]
    mean_genre_affinity(titles.genres_VG, rows_C, user.genre_profile_2G[PROFILE_RECENT], recent_C)
    _fill_title_users(user.query.user_index, titles.interactions, user.similarity_U, rows_C, candidate_CF)
    candidate_CF[:, Candidate.USER_EVENTS] = np.log1p(float(user.query.user_events))
    candidate_CF[:, Candidate.USER_IDLE_TIME] = facts.idle_time
    candidate_CF[:, Candidate.SESSION_EVENTS] = np.log1p(facts.session_events)
    candidate_CF[:, Candidate.INTER_EVENT_TIME] = facts.inter_event_time
    candidate_CF[:, Candidate.USER_MEAN_LIKING] = facts.mean_liking
    candidate_CF[:, Candidate.HORIZON] = np.log1p(float(user.query.horizon))


@njit(cache=True)
def _fill_text_neighbors(
    titles: TitleSignals, pool: Pool, rows_C: NDArray[np.int64], out_CF: NDArray[np.float32]
) -> None:
    """Write the weighted means of signals over each title's text neighbors; those outside the pool have none."""
    text_neighbors_VK, static_VF = titles.text_neighbors_VK, titles.static_VF
    slot_V, summed_PF = pool.slot_V, pool.summed_PF
    weight_K = np.zeros(text_neighbors_VK.shape[1], np.float32)
    for c in range(rows_C.size):
        text_weights(titles, rows_C[c], weight_K)
        session, transition = np.float32(0.0), np.float32(0.0)
        similarity, ridge, popularity = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for k in range(weight_K.size):
            other, weight = text_neighbors_VK[rows_C[c], k], weight_K[k]
            if other >= 0:
                popularity += weight * static_VF[other, Static.POPULARITY_WEEK]
            if other >= 0 and slot_V[other] >= 0:
                p = slot_V[other]
                session += weight * summed_PF[p, Summed.SESSION_COOCCURRENCE_COSINE] ** 2
                transition += weight * summed_PF[p, Summed.TRANSITION_RECENT] ** 2
                similarity += weight * summed_PF[p, Summed.NEIGHBOR_SIMILARITY] ** 2
                ridge += weight * summed_PF[p, Summed.KNN_RIDGE] ** 2
        out_CF[c, Candidate.TEXT_NEIGHBOR_SESSION_COOCCURRENCE] = np.sqrt(session)
        out_CF[c, Candidate.TEXT_NEIGHBOR_TRANSITION] = np.sqrt(transition)
        out_CF[c, Candidate.TEXT_NEIGHBOR_USER_SIMILARITY] = np.sqrt(similarity)
        out_CF[c, Candidate.TEXT_NEIGHBOR_KNN_RIDGE] = np.sqrt(ridge)
        out_CF[c, Candidate.TEXT_NEIGHBOR_POPULARITY] = popularity


@njit(cache=True)
def _fill_dates(
    now: int, titles: TitleSignals, facts: UserFacts, rows_C: NDArray[np.int64], out_CF: NDArray[np.float32]
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
        out_CF[c, Candidate.TITLE_USERS_SIMILARITY] = np.sqrt(total / np.sqrt(count + TITLE_USERS_PRIOR))
        out_CF[c, Candidate.TITLE_USERS_MAX] = np.sqrt(largest)
