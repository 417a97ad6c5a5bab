"""The newest events seen from both ends: what each user took, and who took each title.

A user's titles lie side by side in the order they were taken, and so do a title's takers, each with the number of the
event in that user's own sequence: "what did others take around this" is a jump and a short read, and costs the same
whatever the number of users and titles. Both are rings: a user's is as long as the audience lets it grow, a title's
keeps its last TAKERS.

E places of the arena · U user slots · V titles · A takers
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

NONE: Final = -1
USERS_PER_TITLE: Final = 64


class InteractionIndex(NamedTuple):
    """row_E: the arena, title rows (NONE where forgotten); a user's ring begins at start_U and has room_U places, event
    `i` of many_U so far lies at `i % room` · taker_VA: user slots (NONE where forgotten), nth_VA: which event of that
    user's it was; the `i`th of taken_V events on a title lies at `i % USERS_PER_TITLE`"""

    row_E: NDArray[np.int32]
    start_U: NDArray[np.int64]
    user_capacity_U: NDArray[np.int64]
    user_count_U: NDArray[np.int64]
    title_users_VA: NDArray[np.int32]
    event_index_VA: NDArray[np.int32]
    title_count_V: NDArray[np.int64]


def empty_index(places: int, users: int, titles: int) -> InteractionIndex:
    """Nothing yet, with room; a user has none before `widen`."""
    start_U, user_capacity_U, user_count_U = (np.zeros(users, np.int64) for _ in range(3))
    title_users_VA, event_index_VA = (np.full((titles, USERS_PER_TITLE), NONE, np.int32) for _ in range(2))
    return InteractionIndex(
        np.full(places, NONE, np.int32),
        start_U,
        user_capacity_U,
        user_count_U,
        title_users_VA,
        event_index_VA,
        np.zeros(titles, np.int64),
    )


@njit(cache=True)
def add_event(interactions: InteractionIndex, user_index: int, row: int) -> None:
    """The user took the title; there must be room."""
    nth, place = (
        interactions.user_count_U[user_index],
        interactions.title_count_V[row] % interactions.title_users_VA.shape[1],
    )
    interactions.row_E[interactions.start_U[user_index] + nth % interactions.user_capacity_U[user_index]] = row
    interactions.title_users_VA[row, place], interactions.event_index_VA[row, place] = user_index, nth
    interactions.user_count_U[user_index] += 1
    interactions.title_count_V[row] += 1


@njit(cache=True)
def recent_titles_of(interactions: InteractionIndex, user_index: int, rows_R: NDArray[np.int32]) -> int:
    """A user's newest titles, newest first, into `rows_R`; how many there are, at most its length."""
    row_E, start, room, many = (
        interactions.row_E,
        interactions.start_U[user_index],
        interactions.user_capacity_U[user_index],
        interactions.user_count_U[user_index],
    )
    n, nth = 0, many - 1
    while n < rows_R.size and nth >= max(many - room, 0):
        row = row_E[start + (nth if nth < room else nth % room)]
        if row >= 0:
            rows_R[n] = row
            n += 1
        nth -= 1
    return n


@njit(cache=True)
def remove_user(interactions: InteractionIndex, user_index: int) -> None:
    """Take a user out: nobody's taker, and no titles."""
    start, room, many = (
        interactions.start_U[user_index],
        interactions.user_capacity_U[user_index],
        interactions.user_count_U[user_index],
    )
    if many > room:  # titles whose takers still name the user may be held no more
        for row in range(len(interactions.title_users_VA)):
            _leave(interactions.title_users_VA[row], user_index)
    for place in range(start, start + min(many, room)):
        if interactions.row_E[place] >= 0:
            _leave(interactions.title_users_VA[interactions.row_E[place]], user_index)
        interactions.row_E[place] = NONE
    interactions.user_count_U[user_index] = 0


@njit(cache=True)
def _leave(taker_A: NDArray[np.int32], user_index: int) -> None:
    for a in range(taker_A.size):
        if taker_A[a] == user_index:
            taker_A[a] = NONE


def evict_rows(interactions: InteractionIndex, rows_M: NDArray[np.int64]) -> None:
    """Take titles out: taken by nobody."""
    gone_V = np.zeros(len(interactions.title_count_V) + 1, bool)  # the last entry answers for NONE
    gone_V[rows_M] = True
    interactions.row_E[gone_V[interactions.row_E]] = NONE
    interactions.title_users_VA[rows_M], interactions.title_count_V[rows_M] = NONE, 0


def widen(interactions: InteractionIndex, user_index: int, start: int, room: int) -> None:
    """Move a user's ring, which must not have turned yet, to a larger place of the arena."""
    old, held = interactions.start_U[user_index], interactions.user_count_U[user_index]
    interactions.row_E[start : start + held] = interactions.row_E[old : old + held]
    interactions.row_E[old : old + held] = NONE  # or it would stay when the user is forgotten
    interactions.start_U[user_index], interactions.user_capacity_U[user_index] = start, room


def grown(interactions: InteractionIndex, places: int = 0, users: int = 0, titles: int = 0) -> InteractionIndex:
    """The same with room for so many more."""
    more = empty_index(places, users, titles)
    return InteractionIndex(*(np.concatenate([mine, new]) for mine, new in zip(interactions, more, strict=True)))


def index_state(interactions: InteractionIndex, users: int, titles: int) -> dict[str, Any]:
    """Everything that is held, as copies: users' rings one after the other, then titles'."""
    held_VA = np.arange(USERS_PER_TITLE) < interactions.title_count_V[:titles, None]
    return {
        "row_N": interactions.row_E[
            _places(
                interactions.start_U[:users],
                np.minimum(interactions.user_count_U, interactions.user_capacity_U)[:users],
            )
        ],
        "many_U": interactions.user_count_U[:users].copy(),
        "taker_N": interactions.title_users_VA[:titles][held_VA],
        "nth_N": interactions.event_index_VA[:titles][held_VA],
        "taken_V": interactions.title_count_V[:titles].copy(),
    }


def load_index(interactions: InteractionIndex, state: dict[str, Any]) -> None:
    """Take the state into `interactions`, where each user of it has room."""
    users, titles = len(state["many_U"]), len(state["taken_V"])
    interactions.user_count_U[:users], interactions.title_count_V[:titles] = state["many_U"], state["taken_V"]
    interactions.row_E[
        _places(
            interactions.start_U[:users], np.minimum(interactions.user_count_U, interactions.user_capacity_U)[:users]
        )
    ] = state["row_N"]
    held_VA = np.arange(USERS_PER_TITLE) < interactions.title_count_V[:titles, None]
    interactions.title_users_VA[:titles][held_VA], interactions.event_index_VA[:titles][held_VA] = (
        state["taker_N"],
        state["nth_N"],
    )


def _places(start_U: NDArray[np.int64], held_U: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in the arena the users' titles lie, user by user."""
    first_U = held_U.cumsum() - held_U
    return np.repeat(start_U - first_U, held_U) + np.arange(int(held_U.sum()))
