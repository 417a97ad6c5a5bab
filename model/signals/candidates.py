"""Generates the candidates of a query: shortlists all titles by the linear score and builds the shortlist's signals.

Learner, evaluation and server all use these functions, so that offline measurements describe what is served. The
ranker then orders the candidates.

V titles · C candidates · N queries · E width of a text embedding · F ranker signals · L events of one history, newest
first
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from model.signals.fill import Scores, Scratch, UserSignals, fill_signals, new_scratch, shortlist
from model.signals.gather import gather_user_signals
from model.signals.inputs import Query, TitleSignals, title_signals
from model.signals.ranker import Ranker
from model.signals.table import COLUMN, SIGNALS, STATICS
from model.state.stream_state import History, StreamState

TEXT_TITLES: Final = 20  # recent titles with whose text a candidate's text is compared
TEXT_COLUMNS: Final = slice(COLUMN["text last"], COLUMN["text closest three"] + 1)
TEXT_DECAY: Final = 0.9  # weight of a title's text per event back
CENTER_PRIOR_TITLES: Final = 16  # weight of the mean text of all titles, in settled titles
_RECENCY_L: Final = TEXT_DECAY ** np.arange(TEXT_TITLES, dtype=np.float32)

ExtraRows = Callable[[NDArray[np.float32]], NDArray[np.int64]]  # linear score of every title -> rows


class CatalogSnapshot(NamedTuple):
    """The data that the queries of one batch read, as of the batch's start."""

    stream_state: StreamState
    titles: TitleSignals
    scratch: Scratch
    text_VE: NDArray[np.float32]  # centered unit text embeddings, zero without text
    count_V: NDArray[np.float32]  # events so far, a copy


class Candidates(NamedTuple):
    """The candidates of one query with their signals."""

    rows_C: NDArray[np.int64]  # the shortlist, best first by the linear score, then the extra rows
    shortlist_size: int
    signals_CF: NDArray[np.float32]
    score_V: NDArray[np.float32]  # linear score of every title, -inf where it is no candidate


def take_snapshot(stream_state: StreamState) -> CatalogSnapshot:
    """Read the titles' signals and text as of now, with fresh buffers."""
    catalog, titles = stream_state.catalog, title_signals(stream_state)
    return CatalogSnapshot(
        stream_state,
        titles,
        new_scratch(len(catalog), len(titles.interactions.user_count_U)),
        _centered_text(stream_state, titles.has_text_V),
        catalog.count_V[: len(catalog)].copy(),
    )


def _centered_text(stream_state: StreamState, has_text_V: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Subtract the mean embedding from all text embeddings and normalize them.

    Most of the cosine of two embeddings comes from components that all texts have in common. Centering raises the
    share of next titles among the nearest 100 from 0.024 to 0.063 (ml-small-2016, 749 samples). The mean is that of the
    settled titles (model/state/text_neighbors.py). Invented launches would otherwise move it, and so change every text
    signal. All titles together count as CENTER_PRIOR_TITLES more, because a stream begins without settled ones.
    """
    catalog = stream_state.catalog
    semantic_VE = catalog.semantic_VE[: len(catalog)]
    if not (texts := int(has_text_V.sum())):
        return semantic_VE
    settled_V = catalog.text_neighbors.settled_V[: len(catalog)]
    weight_V = has_text_V * (settled_V + np.float32(CENTER_PRIOR_TITLES / texts))
    text_VE: NDArray[np.float32] = semantic_VE - weight_V @ semantic_VE / weight_V.sum()
    text_VE *= (has_text_V / np.maximum(np.sqrt(np.einsum("ve,ve->v", text_VE, text_VE)), 1e-6))[:, None]
    return text_VE


def text_scores(snapshot: CatalogSnapshot, histories: Sequence[History]) -> NDArray[np.float32]:
    """Return the cosine of each title's text with the recency-weighted text of each history: [N, V]."""
    if not snapshot.titles.has_text_V.any():
        return np.zeros((len(histories), len(snapshot.text_VE)), np.float32)
    profile_NE = np.zeros((len(histories), snapshot.text_VE.shape[1]), np.float32)
    for n, history in enumerate(histories):
        recent_L = history.rows_L[history.rows_L >= 0][: -TEXT_TITLES - 1 : -1]
        if len(recent_L):
            profile_E = _RECENCY_L[: len(recent_L)] @ snapshot.text_VE[recent_L]
            profile_NE[n] = profile_E / max(float(np.linalg.norm(profile_E)), 1e-6)
    cosine_NV: NDArray[np.float32] = (torch.from_numpy(profile_NE) @ torch.from_numpy(snapshot.text_VE).T).numpy()
    return cosine_NV


def static_scores(snapshot: CatalogSnapshot, ranker: Ranker) -> NDArray[np.float32]:
    """Return the part of the linear score that is the same for all users: [V]."""
    return np.asarray(snapshot.titles.static_VF @ ranker.linear_weights_F[:STATICS])


def user_signals(snapshot: CatalogSnapshot, query: Query) -> UserSignals:
    """The query user's signals for all titles; valid until the next call for the same snapshot."""
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

    `extra_rows` may be a function of the linear scores.
    """
    rows_C, score_V = shortlist(snapshot.titles, user, scores, ranker.linear_weights_F, blocked, limit)
    size = len(rows_C)
    rows_C = np.concatenate([rows_C, extra_rows(score_V) if callable(extra_rows) else extra_rows])
    signals_CF = build_signals(snapshot, user, rows_C, top_score(scores.backbone_V, rows_C[:size]))
    return Candidates(rows_C, size, signals_CF, score_V)


def top_score(backbone_V: NDArray[np.float32], shortlist_C: NDArray[np.int64]) -> float:
    """Return the backbone's best score in a shortlist."""
    return float(backbone_V[shortlist_C].max()) if len(shortlist_C) else 0.0


def build_signals(
    snapshot: CatalogSnapshot, user: UserSignals, rows_C: NDArray[np.int64], backbone_top: float
) -> NDArray[np.float32]:
    """Return all signals of the rows: [C, F]. `backbone_top` is the backbone's best score in the shortlist."""
    signals_CF = np.empty((len(rows_C), len(SIGNALS)), np.float32)
    fill_signals(user, snapshot.titles, rows_C, backbone_top, signals_CF)
    recent_L = user.query.recent_L[:TEXT_TITLES]
    signals_CF[:, TEXT_COLUMNS] = 0
    if len(recent_L) and len(rows_C) and snapshot.titles.has_text_V.any():
        text_CE, recent_LE = snapshot.text_VE[rows_C], snapshot.text_VE[recent_L]
        cosine_CL = (torch.from_numpy(text_CE) @ torch.from_numpy(recent_LE).T).numpy()
        _fill_text_signals(cosine_CL, signals_CF[:, TEXT_COLUMNS])
    return signals_CF


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
