"""Generates the candidates of a query: scores the titles that it reaches, and builds the signals of the best of them.

Learner, evaluation and server all use these functions, so that offline measurements describe what is served. The
ranker then orders the candidates.

V titles · M considered titles · C candidates · N queries · E width of a text embedding · F ranker signals · L events of
one history, newest first
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from model.metrics.ranking import average_rank
from model.signals.fill import UserSignals, fill_signals
from model.signals.gather import add_titles, gather_user_signals, match_text_neighbors
from model.signals.inputs import Query
from model.signals.pool import ALL_TITLES, Pool, truncate
from model.signals.query_scores import AllScores, BatchScores, CellScores, QueryScores
from model.signals.ranker import Ranker
from model.signals.snapshot import CatalogSnapshot
from model.signals.table import COLUMN, SIGNALS, STATICS, SUMS, Matched
from model.state.stream_state import History

# Not measured.
TEXT_TITLES: Final = 20  # recent titles with whose text a candidate's text is compared
TEXT_COLUMNS: Final = slice(COLUMN["text last"], COLUMN["text closest three"] + 1)
TEXT_DECAY: Final = 0.9  # weight of a title's text per event back
_RECENCY_L: Final = TEXT_DECAY ** np.arange(TEXT_TITLES, dtype=np.float32)

# The best titles by scores that need no event of the user. On ml-small-2016 the titles that a user's events reach hold
# 0.9995 of the best 400 of all titles; with 300 further ones, 0.9999.
TEXT_BEST: Final = 300
BACKBONE_BEST: Final = 300
STATIC_BEST: Final = 500
REFINED_SHARE: Final = 2  # times the shortlist's size: titles whose text neighbors are read to choose the shortlist

ExtraRows = Callable[[NDArray[np.float32]], NDArray[np.int64]]  # linear scores of the competing new titles -> rows


class StaticScores(NamedTuple):
    """The part of the linear score that is the same for all users."""

    score_V: NDArray[np.float32]  # the static signals times their linear weights
    best_M: NDArray[np.int64]  # rows of the best candidates, which every query considers


class Scores(NamedTuple):
    """Scores for one query that do not depend on what its events reach."""

    static: StaticScores
    text: QueryScores  # cosine with the user's recent texts
    backbone: QueryScores


class Candidates(NamedTuple):
    """The candidates of one query with their signals."""

    rows_C: NDArray[np.int64]  # the shortlist, best first by the linear score, then the extra rows
    shortlist_size: int
    signals_CF: NDArray[np.float32]
    score_C: NDArray[np.float32]  # linear score, -inf where a title is blocked or no candidate
    considered_M: NDArray[np.int32]  # rows of all titles that competed for the shortlist
    score_M: NDArray[np.float32]  # their linear scores, as score_C

    def rank(self, row: int, without: NDArray[np.int32] | None = None) -> float:
        """The rank by the linear score among the considered titles; infinity if the title is not among them.

        The titles in `without` do not count.
        """
        at = np.flatnonzero(self.considered_M == row)
        if not len(at):
            return float("inf")
        if without is None or not len(without):
            return average_rank(self.score_M, int(at[0]))
        return average_rank(np.where(np.isin(self.considered_M, without), -np.inf, self.score_M), int(at[0]))


def text_scores(snapshot: CatalogSnapshot, histories: Sequence[History]) -> BatchScores:
    """The cosine of each title's text with the recency-weighted text of each history."""
    catalog = snapshot.stream_state.catalog
    center, text_VE = catalog.text_center, catalog.semantic_VE[: len(catalog)]
    profile_NE = np.zeros((len(histories), text_VE.shape[1]), np.float32)
    for n, history in enumerate(histories):
        recent_L = history.rows_L[history.rows_L >= 0][: -TEXT_TITLES - 1 : -1]
        if len(recent_L):
            profile_E = _RECENCY_L[: len(recent_L)] @ snapshot.centered_text(recent_L)
            profile_NE[n] = profile_E / max(float(np.linalg.norm(profile_E)), 1e-6)
    queries, text, center_E = map(torch.from_numpy, (profile_NE, text_VE, center.center_E))

    def compute(part: slice) -> Sequence[QueryScores]:
        """The product with the centered texts, which are not stored: (text - center) times the inverse distance."""
        offset_N = queries[part] @ center_E
        if catalog.text_cells.is_ready:
            proposed = catalog.text_cells.proposed(profile_NE[part])
            each = zip(profile_NE[part], proposed, offset_N.tolist(), strict=True)
            scale_V = center.inverse_distance_V
            return [
                CellScores(profile_E, catalog.text_cells, rows, offset, scale_V) for profile_E, rows, offset in each
            ]
        cosine_NV: NDArray[np.float32] = (queries[part] @ text.T - offset_N[:, None]).numpy()
        cosine_NV *= center.inverse_distance_V[: len(text_VE)]
        return [AllScores(cosine_V) for cosine_V in cosine_NV]

    return BatchScores(len(histories), compute)


def static_scores(snapshot: CatalogSnapshot, ranker: Ranker) -> StaticScores:
    """The part of the linear score that is the same for all users."""
    score_V = np.asarray(snapshot.titles.static_VF @ ranker.linear_weights_F[:STATICS])
    open_V = np.where(snapshot.titles.candidate_V, score_V, -np.inf)
    return StaticScores(score_V, AllScores(open_V).best(STATIC_BEST))


def updated_static_scores(
    earlier: StaticScores, snapshot: CatalogSnapshot, ranker: Ranker, rows: NDArray[np.int64]
) -> StaticScores:
    """The scores after these titles changed. A changed candidate joins the best if it reaches their lowest score."""
    score_V = earlier.score_V
    if len(score_V) < len(snapshot.titles.candidate_V):
        score_V = np.zeros(len(snapshot.scratch.pool.slot_V), np.float32)
        score_V[: len(earlier.score_V)] = earlier.score_V
    score_V[rows] = snapshot.titles.static_VF[rows] @ ranker.linear_weights_F[:STATICS]
    least = score_V[earlier.best_M].min(initial=np.inf)
    better_M = rows[snapshot.titles.candidate_V[rows] & (score_V[rows] >= least)]
    return StaticScores(score_V, np.union1d(earlier.best_M, better_M))


def open_titles(snapshot: CatalogSnapshot, blocked: NDArray[np.int32]) -> int:
    """The number of candidates in the catalog that are not blocked."""
    return snapshot.candidates - int(np.count_nonzero(snapshot.titles.candidate_V[np.unique(blocked[blocked >= 0])]))


def user_signals(snapshot: CatalogSnapshot, query: Query) -> UserSignals:
    """The signals of the titles that the user's events reach; valid until the next call for the same snapshot."""
    return gather_user_signals(query, snapshot.titles, snapshot.stream_state.counters, snapshot.scratch)


def generate_candidates(
    snapshot: CatalogSnapshot,
    ranker: Ranker,
    user: UserSignals,
    scores: Scores,
    blocked: NDArray[np.int32],
    limit: int,
    extra_rows: NDArray[np.int64] | ExtraRows,
) -> Candidates:
    """Return the `limit` best candidates and the extra rows, with all signals.

    Considered are the titles that the user's events reach, those with the best static, text and backbone scores, and
    the competing new titles. `extra_rows` may be a function of the linear scores of the competing new titles.
    """
    pool, linear_F, new_M = user.pool, ranker.linear_weights_F, snapshot.new_titles.competing_M
    truncate(pool, user.reached)
    proposed = scores.text.best(TEXT_BEST), scores.backbone.best(BACKBONE_BEST), scores.static.best_M, new_M
    score_M = _add_and_score(snapshot, linear_F, user, scores, np.concatenate(proposed), 0)
    considered = len(score_M)
    blocked_rows = blocked[blocked >= 0]
    _block(pool, blocked_rows, score_M, 0)
    refined_M = np.ones(considered, np.bool_)
    if considered > ALL_TITLES:
        refined_M[:] = score_M >= _least(score_M, REFINED_SHARE * limit)
        refined_M[pool.slot_V[new_M]] = True
    refined_C = np.flatnonzero(refined_M)
    match_text_neighbors(user, snapshot.titles, refined_C)
    weight = linear_F[STATICS + SUMS + Matched.TEXT_NEIGHBOR_COOCCURRENCE]
    score_M[refined_C] += weight * pool.matched_FP[Matched.TEXT_NEIGHBOR_COOCCURRENCE, refined_C]
    slot_C = _best_first(score_M, limit)
    if callable(extra_rows):
        extra_rows = extra_rows(score_M[pool.slot_V[new_M]])
    added_M = _add_and_score(snapshot, linear_F, user, scores, extra_rows, considered)
    _block(pool, blocked_rows, added_M, considered)
    extra_C = pool.slot_V[extra_rows]
    match_text_neighbors(user, snapshot.titles, extra_C)
    rows_C = np.concatenate([pool.row_P[slot_C], extra_rows]).astype(np.int64)
    score_C = np.concatenate([score_M, added_M])[np.concatenate([slot_C, extra_C])]
    top = float(pool.matched_FP[Matched.BACKBONE, slot_C].max(initial=-np.inf)) if len(slot_C) else 0.0
    signals_CF = build_signals(snapshot, user, rows_C, top)
    return Candidates(rows_C, len(slot_C), signals_CF, score_C, pool.row_P[:considered].copy(), score_M)


def _add_and_score(
    snapshot: CatalogSnapshot,
    linear_F: NDArray[np.float32],
    user: UserSignals,
    scores: Scores,
    rows: NDArray[np.int64],
    start: int,
) -> NDArray[np.float32]:
    """Let titles join the pool; the linear scores of the slots from `start` on, without text neighbors."""
    pool = user.pool
    add_titles(user, snapshot.titles, snapshot.stream_state.counters, rows)
    part = slice(start, int(pool.size_1[0]))
    row_P, matched_FP = pool.row_P[part], pool.matched_FP[:, part]
    matched_FP[Matched.TEXT_RECENT], matched_FP[Matched.BACKBONE] = scores.text.of(row_P), scores.backbone.of(row_P)
    matched_FP[Matched.TEXT_NEIGHBOR_COOCCURRENCE] = 0.0  # another pipeline may have filled it
    summed_F, matched_F = linear_F[STATICS : STATICS + SUMS], linear_F[STATICS + SUMS :]
    score_M = scores.static.score_V[row_P] + pool.summed_PF[part] @ summed_F + matched_F @ matched_FP
    score_M[~snapshot.titles.candidate_V[row_P]] = -np.inf
    return np.asarray(score_M)


def _block(pool: Pool, rows: NDArray[np.int32], score_M: NDArray[np.float32], start: int) -> None:
    """Give the blocked titles in the slots from `start` on the score -inf."""
    slot_M = pool.slot_V[rows] - start
    score_M[slot_M[(slot_M >= 0) & (slot_M < len(score_M))]] = -np.inf


def _least(score_M: NDArray[np.float32], limit: int) -> float:
    """The lowest of the `limit` highest scores."""
    return float(np.partition(score_M, len(score_M) - limit)[len(score_M) - limit]) if len(score_M) > limit else -np.inf


def _best_first(score_M: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """Indices of the `limit` highest scores above -inf, the highest first; of equals the first."""
    best_M = np.flatnonzero((score_M >= _least(score_M, limit)) & (score_M > -np.inf))
    return best_M[np.argsort(-score_M[best_M], kind="stable")][:limit]


def build_signals(
    snapshot: CatalogSnapshot, user: UserSignals, rows_C: NDArray[np.int64], backbone_top: float
) -> NDArray[np.float32]:
    """Return all signals of the rows, which must be in the pool: [C, F].

    `backbone_top` is the backbone's best score in the shortlist.
    """
    signals_CF = np.empty((len(rows_C), len(SIGNALS)), np.float32)
    fill_signals(user, snapshot.titles, rows_C, backbone_top, signals_CF)
    recent_L = user.query.recent_L[:TEXT_TITLES]
    signals_CF[:, TEXT_COLUMNS] = 0
    if len(recent_L) and len(rows_C):
        text_CE, recent_LE = snapshot.centered_text(rows_C), snapshot.centered_text(recent_L)
        cosine_CL = (torch.from_numpy(text_CE) @ torch.from_numpy(recent_LE).T).numpy()
        _fill_text_signals(cosine_CL, signals_CF[:, TEXT_COLUMNS])
    return signals_CF


def signals_of(
    snapshot: CatalogSnapshot,
    user: UserSignals,
    rows_C: NDArray[np.int64],
    text: QueryScores,
    backbone_C: NDArray[np.float32],
    backbone_top: float,
) -> NDArray[np.float32]:
    """All signals of given titles, with their backbone scores: [C, F]."""
    pool = user.pool
    add_titles(user, snapshot.titles, snapshot.stream_state.counters, rows_C)
    slot_C = pool.slot_V[rows_C]
    pool.matched_FP[Matched.TEXT_RECENT, slot_C] = text.of(rows_C)
    pool.matched_FP[Matched.BACKBONE, slot_C] = backbone_C
    match_text_neighbors(user, snapshot.titles, slot_C)
    return build_signals(snapshot, user, rows_C, backbone_top)


@njit(cache=True)
def _fill_text_signals(cosine_CL: NDArray[np.float32], out_C3: NDArray[np.float32]) -> None:
    """Write the cosine with the last title, with the nearest title, and the mean of the nearest three."""
    nearest = min(3, cosine_CL.shape[1])
    for c in range(cosine_CL.shape[0]):
        first, second, third = np.float32(-2.0), np.float32(-2.0), np.float32(-2.0)
        for r in range(cosine_CL.shape[1]):
            cosine = cosine_CL[c, r]
            if cosine > first:
                first, second, third = cosine, first, second
            elif cosine > second:
                second, third = cosine, second
            elif cosine > third:
                third = cosine
        total = first + (second if nearest > 1 else 0.0) + (third if nearest > 2 else 0.0)
        out_C3[c, 0], out_C3[c, 1], out_C3[c, 2] = cosine_CL[c, 0], first, total / nearest
