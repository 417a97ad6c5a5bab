"""From a question to ranked candidates: gather the signals, shortlist every title, read the rest, let the ranker order.

Learner, evaluation and server all ask here, so what is measured is what is served.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from model.signals import table
from model.signals.ranker import Ranker
from model.signals.table import SIGNALS, STATIC, TEXT_COLUMNS, Query, Scratch, TitleSignals
from model.state.stream_state import History, StreamState

_RECENCY = 0.9 ** np.arange(table.COMPARED, dtype=np.float32)


class CatalogSnapshot(NamedTuple):
    """The memory as of one moment: what a batch of questions is answered from.

    text_VS: the titles' text less what all texts have in common, unit rows, zero without text · count_V: a copy of the
    events so far: what is counted later does not show
    """

    stream_state: StreamState
    titles: TitleSignals
    scratch: Scratch
    text_VS: NDArray[np.float32]
    count_V: NDArray[np.float32]


class Candidates(NamedTuple):
    """rows_C: the shortlist, best first by the linear score, then any further rows that were asked for ·
    listed: how many are the shortlist · signals_CF · score_V: the linear score of every title, -inf where no
    candidate."""

    rows_C: NDArray[np.int64]
    listed: int
    signals_CF: NDArray[np.float32]
    score_V: NDArray[np.float32]


def view(stream_state: StreamState) -> CatalogSnapshot:
    """The memory now."""
    titles = stream_state.titles()
    count_V = stream_state.catalog.count_V[: len(stream_state.catalog)].copy()
    return CatalogSnapshot(
        stream_state, titles, stream_state.scratch(), _centred(stream_state, titles.has_text_V), count_V
    )


def _centred(stream_state: StreamState, has_text_V: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Less the mean, for encoders put most of a cosine into what every text shares: on ml-small-2016 the share of next
    titles among the nearest hundred rises from .024 to .063 (749 samples)."""
    semantic_VS = stream_state.catalog.semantic_VS[: len(stream_state.catalog)]
    if not (texts := int(has_text_V.sum())):
        return semantic_VS
    text_VS: NDArray[np.float32] = semantic_VS - semantic_VS.sum(0) / texts
    text_VS *= (has_text_V / np.maximum(np.sqrt(np.einsum("vs,vs->v", text_VS, text_VS)), 1e-6))[:, None]
    return text_VS


def text_scores(snapshot: CatalogSnapshot, histories: Sequence[History]) -> NDArray[np.float32]:
    """Cosine of each title's text and the user's recent taste, recent titles counting more: [N, V]."""
    if not snapshot.titles.has_text_V.any():
        return np.zeros((len(histories), len(snapshot.text_VS)), np.float32)
    taste_NS = np.zeros((len(histories), snapshot.text_VS.shape[1]), np.float32)
    for n, history in enumerate(histories):
        recent = _recent_rows(history)
        if len(recent):
            taste_S = _RECENCY[: len(recent)] @ snapshot.text_VS[recent]
            taste_NS[n] = taste_S / max(float(np.linalg.norm(taste_S)), 1e-6)
    cosine_NV: NDArray[np.float32] = (torch.from_numpy(taste_NS) @ torch.from_numpy(snapshot.text_VS).T).numpy()
    return cosine_NV


def find(
    snapshot: CatalogSnapshot,
    ranker: Ranker,
    query: Query,
    history: History,
    text_V: NDArray[np.float32],
    backbone_V: NDArray[np.float32],
    static_V: NDArray[np.float32],
    blocked: NDArray[np.int32],
    most: int,
    extra_rows: NDArray[np.int64],
) -> Candidates:
    """The `most` best candidates and the rows `extra_rows`, with all signals; the scratch must hold the asker (`gather`)."""
    scores = (static_V, text_V, backbone_V)
    rows_C, score_V = table.shortlist(query, snapshot.titles, snapshot.scratch, ranker.weights_D, scores, blocked, most)
    listed = len(rows_C)
    rows_C = np.concatenate([rows_C, extra_rows])
    signals_CF = read(snapshot, query, history, rows_C, top_score(backbone_V, rows_C[:listed]))
    return Candidates(rows_C, listed, signals_CF, score_V)


def top_score(backbone_V: NDArray[np.float32], listed_C: NDArray[np.int64]) -> float:
    """The backbone's best score in a shortlist."""
    return float(backbone_V[listed_C].max()) if len(listed_C) else 0.0


def read(
    snapshot: CatalogSnapshot, query: Query, history: History, rows_C: NDArray[np.int64], best: float
) -> NDArray[np.float32]:
    """All signals of the rows, text included; the scratch must hold the asker, `best` is the backbone's lead."""
    signals_CF = np.empty((len(rows_C), len(SIGNALS)), np.float32)
    table.read(query, snapshot.titles, snapshot.scratch, rows_C, best, signals_CF)
    recent = _recent_rows(history)
    signals_CF[:, TEXT_COLUMNS] = 0
    if len(recent) and len(rows_C) and snapshot.titles.has_text_V.any():
        cosine_CR = (torch.from_numpy(snapshot.text_VS[rows_C]) @ torch.from_numpy(snapshot.text_VS[recent]).T).numpy()
        _closest(cosine_CR, signals_CF[:, TEXT_COLUMNS])
    return signals_CF


@njit(cache=True)
def _closest(cosine_CR: NDArray[np.float32], out_C3: NDArray[np.float32]) -> None:
    """Cosines with recent titles, newest first: with the last, with the nearest, and the mean of the nearest three."""
    few = min(3, cosine_CR.shape[1])
    for c in range(cosine_CR.shape[0]):
        first, second, third = np.float32(-2.0), np.float32(-2.0), np.float32(-2.0)
        for r in range(cosine_CR.shape[1]):
            cosine = cosine_CR[c, r]
            if cosine > first:
                first, second, third = cosine, first, second
            elif cosine > second:
                second, third = cosine, second
            elif cosine > third:
                third = cosine
        near = first + (second if few > 1 else 0.0) + (third if few > 2 else 0.0)
        out_C3[c, 0], out_C3[c, 1], out_C3[c, 2] = cosine_CR[c, 0], first, near / few


def static_scores(snapshot: CatalogSnapshot, ranker: Ranker) -> NDArray[np.float32]:
    """The part of the linear score that is the same for everybody: [V]."""
    return np.asarray(snapshot.titles.static_VS @ ranker.weights_D[: len(STATIC)])


def _recent_rows(history: History) -> NDArray[np.int64]:
    rows = history.rows_L[: -table.COMPARED - 1 : -1]
    return rows[rows >= 0]
