"""The newest events of everybody as one linked log: who took a title, and what they took around it.

An event knows the one before and after it by the same user and the one before it on the same title, so that "what did
others take around this" is a short walk. One ring of events bounds it, whatever the number of users and titles: those
with many events use many places. Events are numbered from the beginning; a place is the number modulo the ring's size,
and a link to a number that the ring has let go leads nowhere. What belongs to an event lies side by side, since a walk
jumps from event to event and waits for memory at each.

E events of the ring · U user slots · V titles
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

NONE: Final = -1
ROW, SLOT, BEFORE, AFTER, EARLIER = range(5)  # of an event: its title, its user, and the numbers of three others


class Trail(NamedTuple):
    """link_E5: title row and user slot (NONE where forgotten), the same user's events BEFORE and AFTER it, the EARLIER
    one on the same title · last_U, last_V: each one's newest event · written_1: events so far"""

    link_E5: NDArray[np.int64]
    last_U: NDArray[np.int64]
    last_V: NDArray[np.int64]
    written_1: NDArray[np.int64]


class Sorted(NamedTuple):
    """A trail that grows no more, sorted for reading: a walk along its links waits for memory at each step. user slots
    by title and title rows by user, newest first (NONE where forgotten), and where each title and user begins; nothing
    of it is there while the trail still grows."""

    taker_E: NDArray[np.int32]
    taker_V: NDArray[np.int64]
    taken_E: NDArray[np.int32]
    taken_U: NDArray[np.int64]


def unsorted() -> Sorted:
    """Nothing: the links are followed."""
    return Sorted(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))


def sort_trail(trail: Trail) -> Sorted:
    """All that is held."""
    number_E = np.arange(trail.written_1[0] - 1, oldest(trail) - 1, -1)
    link_E5 = trail.link_E5[number_E % len(trail.link_E5)]
    row_E, slot_E = (link_E5[(link_E5[:, ROW] >= 0) & (link_E5[:, SLOT] >= 0)][:, way] for way in (ROW, SLOT))
    taker_V, taken_U = (
        np.append(0, np.bincount(e, minlength=len(last)).cumsum())
        for e, last in ((row_E, trail.last_V), (slot_E, trail.last_U))
    )
    taker_E, taken_E = (e[by.argsort(kind="stable")].astype(np.int32) for e, by in ((slot_E, row_E), (row_E, slot_E)))
    return Sorted(taker_E, taker_V, taken_E, taken_U)


def leave_sorted(known: Sorted, slot: int) -> None:
    """A user is forgotten."""
    known.taker_E[known.taker_E == slot] = NONE
    known.taken_E[known.taken_U[slot] : known.taken_U[slot + 1]] = NONE


def empty_trail(events: int, users: int, titles: int) -> Trail:
    """Nothing yet, with room."""
    links, users_, titles_ = (np.full(shape, NONE, np.int64) for shape in ((events, 5), users, titles))
    return Trail(links, users_, titles_, np.zeros(1, np.int64))


@njit(cache=True)
def oldest(trail: Trail) -> int:
    """The first number that is still held: a walk goes on while its number is not below it. (Read once before a loop,
    as `link_E5` is: to take an array out of a tuple costs more than the step itself.)"""
    return int(max(0, trail.written_1[0] - trail.link_E5.shape[0]))


@njit(cache=True)
def add_event(trail: Trail, slot: int, row: int) -> None:
    """The user took the title."""
    links = trail.link_E5
    number, before, earlier = trail.written_1[0], trail.last_U[slot], trail.last_V[row]
    trail.written_1[0] = number + 1  # from here on the event that lay in this place is not held
    if before >= oldest(trail):
        links[before % len(links), AFTER] = number
    at = number % len(links)
    links[at, ROW], links[at, SLOT] = row, slot
    links[at, BEFORE], links[at, AFTER], links[at, EARLIER] = before, NONE, earlier
    trail.last_U[slot], trail.last_V[row] = number, number


@njit(cache=True)
def forget_slot(trail: Trail, slot: int) -> None:
    """Take a user's events out; the chains of titles lead on past them."""
    links, first, number = trail.link_E5, oldest(trail), trail.last_U[slot]
    while number >= first:
        at = number % len(links)
        links[at, ROW], links[at, SLOT] = NONE, NONE
        number = links[at, BEFORE]
    trail.last_U[slot] = NONE


@njit(cache=True)
def forget_row(trail: Trail, row: int) -> None:
    """Take a title's events out; its users' chains lead on past them."""
    links, first, number = trail.link_E5, oldest(trail), trail.last_V[row]
    while number >= first:
        at = number % len(links)
        links[at, ROW] = NONE
        number = links[at, EARLIER]
    trail.last_V[row] = NONE


@njit(cache=True)
def newest_of(trail: Trail, known: Sorted, slot: int, rows: NDArray[np.int32]) -> int:
    """A user's newest titles, newest first, into `rows`; how many there are, at most its length."""
    n = 0
    if slot + 1 < known.taken_U.size:
        for at in range(known.taken_U[slot], known.taken_U[slot + 1]):
            if n == rows.size:
                break
            if known.taken_E[at] >= 0:
                rows[n] = known.taken_E[at]
                n += 1
        return n
    links, first, number = trail.link_E5, oldest(trail), trail.last_U[slot]
    while n < rows.size and number >= first:
        at = number % len(links)
        if links[at, ROW] >= 0:
            rows[n] = links[at, ROW]
            n += 1
        number = links[at, BEFORE]
    return n


def grown(trail: Trail, events: int = 0, users: int = 0, titles: int = 0) -> Trail:
    """The same with room for so many more. Of events only before the ring is full: numbers keep their places."""
    more = empty_trail(events, users, titles)
    link_E5, last_U, last_V = [np.concatenate([mine, new]) for mine, new in zip(trail[:3], more[:3], strict=True)]
    return Trail(link_E5, last_U, last_V, trail.written_1)


def trail_state(trail: Trail, users: int, titles: int) -> dict[str, Any]:
    """Everything that is held, as copies."""
    kept = min(int(trail.written_1[0]), len(trail.link_E5))
    ends = {"last_U": trail.last_U[:users].copy(), "last_V": trail.last_V[:titles].copy()}
    return {"link_E5": trail.link_E5[:kept].copy(), **ends, "written_1": trail.written_1.copy()}
