"""Prepares the inputs of the signals: arrays of all titles, and the query of one user.

The functions here read the stream state once per micro-batch or per query, so that compiled code sees arrays only.

V titles · F static signals · K text neighbors of a title · B user-activity buckets · G genres of a title ·
L events of one history
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.actions import LIKING
from model.state import counters as counting
from model.state.interactions import InteractionIndex
from model.state.stream_state import History, StreamState

TEXT_WEIGHT_POWER: Final = 3  # a text neighbor's weight is its cosine to this power
TEXT_WEIGHT_PRIOR: Final = 0.3  # added to the sum of the weights: distant neighbors then add up to less than 1
_LIKING: Final = np.array(LIKING, np.float32)  # by action code


class TitleSignals(NamedTuple):
    """The data that the signals read for all titles, as of the start of a micro-batch.

    Popularity and counts are copies. The metadata arrays and `interactions` are the stream state's own, so that later
    events are visible there.
    """

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


class Query(NamedTuple):
    """One request to rank titles: a user's known titles, the time and the horizon."""

    recent_L: NDArray[np.int32]  # title rows, newest first
    times_L: NDArray[np.int64]  # ms
    liking_L: NDArray[np.float32]
    now: int  # ms
    user_index: int  # in the user store, -1 for an unknown user
    user_events: int  # of the user so far
    horizon: int  # events that will have passed when the list is read


def title_signals(state: StreamState) -> TitleSignals:
    """Read the titles' signals as of the counters' present time."""
    catalog, counters, n = state.catalog, state.counters, len(state.catalog)
    count_V, events_V = catalog.count_V[:n], state.user_store.interactions.title_count_V[:n].astype(np.float32)
    static_VF = np.concatenate(
        [
            counting.log_popularity(counters, n),
            np.log1p(count_V)[:, None],
            np.rint(count_V)[:, None] == (0, 1),
            counting.log_hours_since_event(counters, n)[:, None],
            counting.mean_liking(counters, count_V)[:, None],
        ],
        1,
        dtype=np.float32,
    )
    neighbors_VK = catalog.text_neighbors.to_VK[:n]
    weight_VK = catalog.text_neighbors.cosine_VK[:n] ** TEXT_WEIGHT_POWER
    weight_VK /= weight_VK.sum(1, keepdims=True) + np.float32(TEXT_WEIGHT_PRIOR)
    week_V = static_VF[:, counting.WEEK_CLOCK]
    return TitleSignals(
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


def user_query(state: StreamState, history: History, now: int, horizon: int = 0) -> Query:
    """Build the query for the next title of `history.user` at `now` ms; unknown titles of the history are left out."""
    known = history.rows_L >= 0
    newest = slice(None, -state.settings.history - 1, -1)
    rows, times = history.rows_L[known][newest], history.times_L[known][newest]
    return Query(
        recent_L=np.ascontiguousarray(rows.astype(np.int32)),
        times_L=np.ascontiguousarray(times),
        liking_L=_LIKING[history.actions_L[known][newest]],
        now=int(now),
        user_index=state.user_store.user_index(history.user),
        user_events=max(state.user_store.event_count(history.user) - horizon, 0),
        horizon=horizon,
    )
