"""The interaction index stores recent events both by user and by title.

Each user has a ring buffer of titles in event order. Each title has a ring buffer of the users of its last events,
with each event's position in that user's sequence. Therefore "which titles did other users interact with directly
before and after this one" is one lookup and a short read, whose cost does not depend on the number of users or titles.

U users · V titles · I recent users of a title · L events of one history · M a subset of titles ·
X positions in the arena, the array that holds all users' ring buffers · N rows of a flat batch
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

EMPTY: Final = -1  # in place of an evicted title or an erased user
# Events of a title whose users are kept. All instead of 64: MRR 0.2108 against 0.2107 (first 8,000 events of
# ml-small-2016; research log, 2026-11-28).
USERS_PER_TITLE: Final = 64


class InteractionIndex(NamedTuple):
    """The index as arrays, for use in compiled code.

    Event `i` of user `u` is at position `start_U[u] + i % user_capacity_U[u]` of `row_X`. The user of event `i` of
    title `v` is `title_users_VI[v, i % USERS_PER_TITLE]`.
    """

    row_X: NDArray[np.int32]  # the arena: title rows, or EMPTY
    start_U: NDArray[np.int64]  # where the user's ring buffer begins in the arena
    user_capacity_U: NDArray[np.int64]  # size of the user's ring buffer
    user_count_U: NDArray[np.int64]  # events of the user so far
    title_users_VI: NDArray[np.int32]  # user indices, or EMPTY
    event_index_VI: NDArray[np.int32]  # number of the event in that user's sequence
    title_count_V: NDArray[np.int64]  # events of the title so far


def empty_index(positions: int, users: int, titles: int) -> InteractionIndex:
    """Return an index without events; a user's ring buffer is allocated by `move_user`."""
    start_U, user_capacity_U, user_count_U = (np.zeros(users, np.int64) for _ in range(3))
    title_users_VI, event_index_VI = (np.full((titles, USERS_PER_TITLE), EMPTY, np.int32) for _ in range(2))
    return InteractionIndex(
        np.full(positions, EMPTY, np.int32),
        start_U,
        user_capacity_U,
        user_count_U,
        title_users_VI,
        event_index_VI,
        np.zeros(titles, np.int64),
    )


@njit(cache=True)
def add_event(interactions: InteractionIndex, user_index: int, row: int) -> None:
    """Add an event of the user on the title; the user must have a ring buffer."""
    event_index = interactions.user_count_U[user_index]
    entry = interactions.title_count_V[row] % interactions.title_users_VI.shape[1]
    interactions.row_X[interactions.start_U[user_index] + event_index % interactions.user_capacity_U[user_index]] = row
    interactions.title_users_VI[row, entry], interactions.event_index_VI[row, entry] = user_index, event_index
    interactions.user_count_U[user_index] += 1
    interactions.title_count_V[row] += 1


@njit(cache=True)
def recent_titles_of(interactions: InteractionIndex, user_index: int, rows_L: NDArray[np.int32]) -> int:
    """Write the user's latest titles into `rows_L`, newest first, and return their number, at most its length."""
    row_X, count = interactions.row_X, interactions.user_count_U[user_index]
    start, capacity = interactions.start_U[user_index], interactions.user_capacity_U[user_index]
    n, event_index = 0, count - 1
    while n < rows_L.size and event_index >= max(count - capacity, 0):
        row = row_X[start + (event_index if event_index < capacity else event_index % capacity)]
        if row >= 0:
            rows_L[n] = row
            n += 1
        event_index -= 1
    return n


@njit(cache=True)
def remove_user(interactions: InteractionIndex, user_index: int) -> None:
    """Remove the user's events from the user's ring buffer and from those of all titles."""
    start, capacity = interactions.start_U[user_index], interactions.user_capacity_U[user_index]
    count = interactions.user_count_U[user_index]
    if count > capacity:  # the user may be listed at titles that the user's ring buffer no longer holds
        for row in range(len(interactions.title_users_VI)):
            _remove_value(interactions.title_users_VI[row], user_index)
    for position in range(start, start + min(count, capacity)):
        if interactions.row_X[position] >= 0:
            _remove_value(interactions.title_users_VI[interactions.row_X[position]], user_index)
        interactions.row_X[position] = EMPTY
    interactions.user_count_U[user_index] = 0


@njit(cache=True)
def _remove_value(users_I: NDArray[np.int32], user_index: int) -> None:
    for i in range(users_I.size):
        if users_I[i] == user_index:
            users_I[i] = EMPTY


def evict_rows(interactions: InteractionIndex, rows_M: NDArray[np.int64]) -> None:
    """Remove all events of evicted titles."""
    evicted_V = np.zeros(len(interactions.title_count_V) + 1, bool)  # index EMPTY reads the last entry, which is False
    evicted_V[rows_M] = True
    interactions.row_X[evicted_V[interactions.row_X]] = EMPTY
    interactions.title_users_VI[rows_M], interactions.title_count_V[rows_M] = EMPTY, 0


def move_user(interactions: InteractionIndex, user_index: int, start: int, capacity: int) -> None:
    """Move a user's ring buffer, which must not have wrapped around, to a larger block of the arena."""
    old, count = interactions.start_U[user_index], interactions.user_count_U[user_index]
    interactions.row_X[start : start + count] = interactions.row_X[old : old + count]
    interactions.row_X[old : old + count] = EMPTY  # otherwise a copy would remain after the user is erased
    interactions.start_U[user_index], interactions.user_capacity_U[user_index] = start, capacity


def resized(interactions: InteractionIndex, positions: int = 0, users: int = 0, titles: int = 0) -> InteractionIndex:
    """Return the same index with this much more capacity."""
    added = empty_index(positions, users, titles)
    return InteractionIndex(*(np.concatenate([old, new]) for old, new in zip(interactions, added, strict=True)))


def index_state(interactions: InteractionIndex, users: int, titles: int) -> dict[str, Any]:
    """Return copies of all events: first the users' ring buffers one after the other, then the titles'."""
    held_VI = np.arange(USERS_PER_TITLE) < interactions.title_count_V[:titles, None]
    return {
        "row_N": interactions.row_X[_positions(interactions, users)],
        "user_count_U": interactions.user_count_U[:users].copy(),
        "title_user_N": interactions.title_users_VI[:titles][held_VI],
        "event_index_N": interactions.event_index_VI[:titles][held_VI],
        "title_count_V": interactions.title_count_V[:titles].copy(),
    }


def load_index(interactions: InteractionIndex, state: dict[str, Any]) -> None:
    """Copy the state into `interactions`, where each of its users must have a large enough ring buffer."""
    users, titles = len(state["user_count_U"]), len(state["title_count_V"])
    interactions.user_count_U[:users] = state["user_count_U"]
    interactions.title_count_V[:titles] = state["title_count_V"]
    interactions.row_X[_positions(interactions, users)] = state["row_N"]
    held_VI = np.arange(USERS_PER_TITLE) < interactions.title_count_V[:titles, None]
    interactions.title_users_VI[:titles][held_VI] = state["title_user_N"]
    interactions.event_index_VI[:titles][held_VI] = state["event_index_N"]


def _positions(interactions: InteractionIndex, users: int) -> NDArray[np.int64]:
    """Return the used arena positions of the first `users` users, one user after the other."""
    start_U = interactions.start_U[:users]
    held_U = np.minimum(interactions.user_count_U, interactions.user_capacity_U)[:users]
    first_U = held_U.cumsum() - held_U
    return np.repeat(start_U - first_U, held_U) + np.arange(int(held_U.sum()))
