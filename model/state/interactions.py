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
TAKERS: Final = 64


class Trail(NamedTuple):
    """row_E: the arena, title rows (NONE where forgotten); a user's ring begins at start_U and has room_U places, event
    `i` of many_U so far lies at `i % room` · taker_VA: user slots (NONE where forgotten), nth_VA: which event of that
    user's it was; the `i`th of taken_V events on a title lies at `i % TAKERS`"""

    row_E: NDArray[np.int32]
    start_U: NDArray[np.int64]
    room_U: NDArray[np.int64]
    many_U: NDArray[np.int64]
    taker_VA: NDArray[np.int32]
    nth_VA: NDArray[np.int32]
    taken_V: NDArray[np.int64]


def empty_trail(places: int, users: int, titles: int) -> Trail:
    """Nothing yet, with room; a user has none before `widen`."""
    start_U, room_U, many_U = (np.zeros(users, np.int64) for _ in range(3))
    taker_VA, nth_VA = (np.full((titles, TAKERS), NONE, np.int32) for _ in range(2))
    return Trail(np.full(places, NONE, np.int32), start_U, room_U, many_U, taker_VA, nth_VA, np.zeros(titles, np.int64))


@njit(cache=True)
def add_event(trail: Trail, slot: int, row: int) -> None:
    """The user took the title; there must be room."""
    nth, place = trail.many_U[slot], trail.taken_V[row] % trail.taker_VA.shape[1]
    trail.row_E[trail.start_U[slot] + nth % trail.room_U[slot]] = row
    trail.taker_VA[row, place], trail.nth_VA[row, place] = slot, nth
    trail.many_U[slot] += 1
    trail.taken_V[row] += 1


@njit(cache=True)
def newest_of(trail: Trail, slot: int, rows_R: NDArray[np.int32]) -> int:
    """A user's newest titles, newest first, into `rows_R`; how many there are, at most its length."""
    row_E, start, room, many = trail.row_E, trail.start_U[slot], trail.room_U[slot], trail.many_U[slot]
    n, nth = 0, many - 1
    while n < rows_R.size and nth >= max(many - room, 0):
        row = row_E[start + (nth if nth < room else nth % room)]
        if row >= 0:
            rows_R[n] = row
            n += 1
        nth -= 1
    return n


@njit(cache=True)
def forget_slot(trail: Trail, slot: int) -> None:
    """Take a user out: nobody's taker, and no titles."""
    start, room, many = trail.start_U[slot], trail.room_U[slot], trail.many_U[slot]
    if many > room:  # titles whose takers still name the user may be held no more
        for row in range(len(trail.taker_VA)):
            _leave(trail.taker_VA[row], slot)
    for place in range(start, start + min(many, room)):
        if trail.row_E[place] >= 0:
            _leave(trail.taker_VA[trail.row_E[place]], slot)
        trail.row_E[place] = NONE
    trail.many_U[slot] = 0


@njit(cache=True)
def _leave(taker_A: NDArray[np.int32], slot: int) -> None:
    for a in range(taker_A.size):
        if taker_A[a] == slot:
            taker_A[a] = NONE


def forget_rows(trail: Trail, rows_M: NDArray[np.int64]) -> None:
    """Take titles out: taken by nobody."""
    gone_V = np.zeros(len(trail.taken_V) + 1, bool)  # the last entry answers for NONE
    gone_V[rows_M] = True
    trail.row_E[gone_V[trail.row_E]] = NONE
    trail.taker_VA[rows_M], trail.taken_V[rows_M] = NONE, 0


def widen(trail: Trail, slot: int, start: int, room: int) -> None:
    """Move a user's ring, which must not have turned yet, to a larger place of the arena."""
    old, held = trail.start_U[slot], trail.many_U[slot]
    trail.row_E[start : start + held] = trail.row_E[old : old + held]
    trail.row_E[old : old + held] = NONE  # or it would stay when the user is forgotten
    trail.start_U[slot], trail.room_U[slot] = start, room


def grown(trail: Trail, places: int = 0, users: int = 0, titles: int = 0) -> Trail:
    """The same with room for so many more."""
    more = empty_trail(places, users, titles)
    return Trail(*(np.concatenate([mine, new]) for mine, new in zip(trail, more, strict=True)))


def trail_state(trail: Trail, users: int, titles: int) -> dict[str, Any]:
    """Everything that is held, as copies: users' rings one after the other, then titles'."""
    held_VA = np.arange(TAKERS) < trail.taken_V[:titles, None]
    return {
        "row_N": trail.row_E[_places(trail.start_U[:users], np.minimum(trail.many_U, trail.room_U)[:users])],
        "many_U": trail.many_U[:users].copy(),
        "taker_N": trail.taker_VA[:titles][held_VA],
        "nth_N": trail.nth_VA[:titles][held_VA],
        "taken_V": trail.taken_V[:titles].copy(),
    }


def load_trail(trail: Trail, state: dict[str, Any]) -> None:
    """Take the state into `trail`, where each user of it has room."""
    users, titles = len(state["many_U"]), len(state["taken_V"])
    trail.many_U[:users], trail.taken_V[:titles] = state["many_U"], state["taken_V"]
    trail.row_E[_places(trail.start_U[:users], np.minimum(trail.many_U, trail.room_U)[:users])] = state["row_N"]
    held_VA = np.arange(TAKERS) < trail.taken_V[:titles, None]
    trail.taker_VA[:titles][held_VA], trail.nth_VA[:titles][held_VA] = state["taker_N"], state["nth_N"]


def _places(start_U: NDArray[np.int64], held_U: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in the arena the users' titles lie, user by user."""
    first_U = held_U.cumsum() - held_U
    return np.repeat(start_U - first_U, held_U) + np.arange(int(held_U.sum()))
