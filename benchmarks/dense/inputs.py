"""The dense reference's inputs: signals and texts of all titles, read anew from the stream state for each micro-batch.

The modules of this folder keep candidate generation in its dense form, as a reference for `benchmarks.scale`: sums,
scores and buffers of all titles for every query. They read the stream state of the product's learner.

V titles · F static signals · K text neighbors of a title · B user-activity buckets · G genres of a title ·
E width of a text embedding · N queries
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model.signals.inputs import Query, user_query
from model.state import counters as counting
from model.state.interactions import InteractionIndex
from model.state.stream_state import History, StreamState

__all__ = ["DenseTitleSignals", "Query", "centered_text", "text_scores", "title_signals", "user_query"]

TEXT_WEIGHT_POWER: Final = 3  # a text neighbor's weight is its cosine to this power
TEXT_WEIGHT_PRIOR: Final = 0.3  # added to the sum of the weights: distant neighbors then add up to less than 1
TEXT_TITLES: Final = 20  # recent titles with whose text a candidate's text is compared
TEXT_DECAY: Final = 0.9  # weight of a title's text per event back
CENTER_PRIOR_TITLES: Final = 16  # weight of the mean text of all titles, in settled titles
_RECENCY_L: Final = TEXT_DECAY ** np.arange(TEXT_TITLES, dtype=np.float32)


class DenseTitleSignals(NamedTuple):
    """The data that the signals read for all titles, as of the start of a micro-batch."""

    candidate_V: NDArray[np.bool_]  # launched and not withdrawn
    year_V: NDArray[np.float32]  # release year, NaN if unknown
    released_V: NDArray[np.int64]  # release date in ms, UNKNOWN_DATE if unknown
    genres_VG: NDArray[np.int16]  # genre codes, then NO_GENRE
    static_VF: NDArray[np.float32]  # the STATIC_SIGNALS
    bucket_popularity_BV: NDArray[np.float32]  # log(1 + events by evidence) by the users' activity bucket
    inv_sqrt_count_V: NDArray[np.float32]  # 1 / sqrt(events + 1), of all events, as the pair counts
    idf_V: NDArray[np.float32]  # 1 / (1 + log(1 + events)): the weight of a title that two users share
    text_neighbors_VK: NDArray[np.int32]  # rows, -1 for none
    text_weight_VK: NDArray[np.float32]  # 0 for none
    text_neighbor_popularity_V: NDArray[np.float32]  # weighted mean over the text neighbors
    has_text_V: NDArray[np.bool_]
    interactions: InteractionIndex


def _log_hours_since_event(counters: counting.Counters, titles: int) -> NDArray[np.float64]:
    """log(1 + hours since the title's last event), with a constant for titles without events: [V]."""
    last_V = counters.last_event_V[:titles]
    hours_V = (counters.now_Z[0] - last_V.astype(np.float64)) / counting.HOUR_MS
    return np.log1p(np.where(last_V == counting.NO_EVENT, counting.NO_EVENT_HOURS, hours_V))


def _mean_liking(counters: counting.Counters, count_V: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean liking of each title's events, shrunk to the global mean: [V]."""
    prior = np.float32(counting.LIKING_PRIOR_EVENTS)
    mean = np.float32(counting.mean_of_liking(counters, count_V))
    liking_V: NDArray[np.float32] = (counters.liking_sum_V[: len(count_V)] + prior * mean) / (count_V + prior)
    return liking_V


def title_signals(state: StreamState) -> DenseTitleSignals:
    """Read the signals of all titles as of the counters' present time."""
    catalog, counters, n = state.catalog, state.counters, len(state.catalog)
    count_V, events_V = catalog.count_V[:n], state.user_store.interactions.title_count_V[:n].astype(np.float32)
    static_VF = np.concatenate(
        [
            np.log1p(counters.popularity_VZ[:n] * counting.popularity_scale(counters)),
            np.log1p(count_V)[:, None],
            np.rint(count_V)[:, None] == (0, 1),
            _log_hours_since_event(counters, n)[:, None],
            _mean_liking(counters, count_V)[:, None],
        ],
        1,
        dtype=np.float32,
    )
    neighbors_VK = catalog.text_neighbors.to_VK[:n]
    weight_VK = catalog.text_neighbors.cosine_VK[:n] ** TEXT_WEIGHT_POWER
    weight_VK /= weight_VK.sum(1, keepdims=True) + np.float32(TEXT_WEIGHT_PRIOR)
    week_V = static_VF[:, counting.WEEK_CLOCK]
    return DenseTitleSignals(
        candidate_V=catalog.candidate_V,
        year_V=catalog.year_V[:n],
        released_V=catalog.released_V[:n],
        genres_VG=catalog.genres_VG[:n],
        static_VF=static_VF,
        bucket_popularity_BV=np.ascontiguousarray(np.log1p(counters.bucket_count_VB[:n]).T),
        inv_sqrt_count_V=(1 / np.sqrt(events_V + 1)).astype(np.float32),
        idf_V=(1 / (1 + np.log1p(events_V))).astype(np.float32),
        text_neighbors_VK=neighbors_VK,
        text_weight_VK=weight_VK,
        text_neighbor_popularity_V=np.einsum("vk,vk->v", weight_VK, week_V[neighbors_VK]),
        has_text_V=np.asarray(catalog.semantic_VE[:n].any(axis=1)),
        interactions=state.user_store.interactions,
    )


def centered_text(state: StreamState, has_text_V: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Subtract the mean embedding of the settled titles from all text embeddings and normalize them: text_VE."""
    catalog = state.catalog
    semantic_VE = catalog.semantic_VE[: len(catalog)]
    if not (texts := int(has_text_V.sum())):
        return semantic_VE
    settled_V = catalog.text_neighbors.settled_V[: len(catalog)]
    weight_V = has_text_V * (settled_V + np.float32(CENTER_PRIOR_TITLES / texts))
    text_VE: NDArray[np.float32] = semantic_VE - weight_V @ semantic_VE / weight_V.sum()
    text_VE *= (has_text_V / np.maximum(np.sqrt(np.einsum("ve,ve->v", text_VE, text_VE)), 1e-6))[:, None]
    return text_VE


def text_scores(text_VE: NDArray[np.float32], histories: Sequence[History]) -> NDArray[np.float32]:
    """The cosine of each title's text with the recency-weighted text of each history: [N, V]."""
    profile_NE = np.zeros((len(histories), text_VE.shape[1]), np.float32)
    for n, history in enumerate(histories):
        recent_L = history.rows_L[history.rows_L >= 0][: -TEXT_TITLES - 1 : -1]
        if len(recent_L):
            profile_E = _RECENCY_L[: len(recent_L)] @ text_VE[recent_L]
            profile_NE[n] = profile_E / max(float(np.linalg.norm(profile_E)), 1e-6)
    cosine_NV: NDArray[np.float32] = (torch.from_numpy(profile_NE) @ torch.from_numpy(text_VE).T).numpy()
    return cosine_NV
