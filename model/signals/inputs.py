"""Prepares the inputs of the signals: arrays of all titles, and the query of one user.

V titles · F static signals · K text neighbors of a title · G genres of a title · L events of one history
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.actions import LIKING
from model.state.interactions import InteractionIndex
from model.state.stream_state import History, StreamState

# Not measured.
TEXT_WEIGHT_POWER: Final = 3  # a text neighbor's weight is its cosine to this power
TEXT_WEIGHT_PRIOR: Final = 0.3  # added to the sum of the weights: distant neighbors then add up to less than 1
_LIKING: Final = np.array(LIKING, np.float32)  # by action code


class TitleSignals(NamedTuple):
    """The data that the signals read for all titles. The arrays are the stream state's own: nothing is copied."""

    candidate_V: NDArray[np.bool_]  # launched and not withdrawn
    year_V: NDArray[np.float32]  # release year, NaN if unknown
    released_V: NDArray[np.int64]  # release date in ms, UNKNOWN_DATE if unknown
    genres_VG: NDArray[np.int16]  # genre codes, then NO_GENRE
    static_VF: NDArray[np.float32]  # the STATIC_SIGNALS, as of each title's last refresh
    text_neighbors_VK: NDArray[np.int32]  # rows, -1 for none
    text_cosine_VK: NDArray[np.float32]  # 0 for none
    inverse_distance_V: NDArray[np.float32]  # of the text from the mean text, 0 without text
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
    """The arrays of the catalog's titles."""
    catalog, n = state.catalog, len(state.catalog)
    return TitleSignals(
        candidate_V=catalog.candidate_V,
        year_V=catalog.year_V[:n],
        released_V=catalog.released_V[:n],
        genres_VG=catalog.genres_VG[:n],
        static_VF=state.static_VF[:n],
        text_neighbors_VK=catalog.text_neighbors.to_VK[:n],
        text_cosine_VK=catalog.text_neighbors.cosine_VK[:n],
        inverse_distance_V=catalog.text_center.inverse_distance_V[:n],
        interactions=state.user_store.interactions,
    )


@njit(cache=True)
def inverse_root_count(interactions: InteractionIndex, row: int) -> np.float32:
    """1 / sqrt(events of the title + 1), of all events, as the pair counts."""
    return np.float32(1.0 / np.sqrt(np.float32(interactions.title_count_V[row]) + np.float32(1.0)))


@njit(cache=True)
def inverse_frequency(interactions: InteractionIndex, row: int) -> np.float32:
    """1 / (1 + log(1 + events of the title)): the weight of a title that two users share (IDF)."""
    return np.float32(1.0 / (np.float32(1.0) + np.log1p(np.float32(interactions.title_count_V[row]))))


@njit(cache=True)
def text_weights(titles: TitleSignals, row: int, weight_K: NDArray[np.float32]) -> None:
    """Write the weights of a title's text neighbors in a mean; a missing one has weight 0."""
    total = np.float32(TEXT_WEIGHT_PRIOR)
    for k in range(weight_K.size):
        weight_K[k] = titles.text_cosine_VK[row, k] ** TEXT_WEIGHT_POWER
        total += weight_K[k]
    for k in range(weight_K.size):
        weight_K[k] /= total


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
