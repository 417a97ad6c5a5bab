"""Which new titles a list takes, and which of them compete for its new-title slots.

A new title is launched and has less than the evidence of one event of an established user. Anyone who can launch titles
could fill lists with them, so new titles share the places:

- Of the titles launched within one minute, the first MAX_PER_MINUTE compete for slots. The next ones follow when these
  have events, while they are new.
- The number of titles that compete and of those that are scored for a list is limited. The places are given to the
  launch minutes in turn, so many launches in one minute push out no title of another one.
- A list takes one new title per launch minute, the one that fits best. It takes further ones of a minute only for slots
  or places that would stay empty.
- Of several new titles with near-identical texts, one is scored for a list, and a list takes one.

Titles launched one by one over many minutes share the slots by fit alone: nothing tells them from real launches.

M new titles · C candidates of a list · V titles of the catalog · E width of a text embedding
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.similar_texts import NEAR_IDENTICAL, NO_GROUPS, TextGroups, group_texts
from model.state.catalog import NOT_LAUNCHED, Catalog
from model.state.launch_order import MIN_EVIDENCE, MINUTE_MS

MAX_PER_LIST: Final = 64  # new titles that the ranker scores for a list
MAX_PER_MINUTE: Final = 64  # launches of one minute that compete at a time
MAX_NEW_TITLES: Final = 2048  # that compete at a time, one of each minute of a day or more: bounds the work per version
NEW_TITLE_MS: Final = 86_400_000  # time since launch, against the newest launch, for which a title competes
MIN_MINUTES: Final = 64  # the newest launch minutes of distinct new titles, which compete for longer


class NewTitles(NamedTuple):
    """The new titles of a catalog that compete for slots."""

    competing_V: NDArray[np.bool_]
    competing_M: NDArray[np.int64]  # their rows
    minute_M: NDArray[np.int64]  # of their launches
    text_M: NDArray[np.int64]  # equal for those with near-identical texts
    groups: TextGroups  # of all titles that may compete


def find_new_titles(catalog: Catalog, earlier: NewTitles | None = None) -> NewTitles:
    """The new titles of the catalog now.

    `earlier` is a result for an earlier state: it saves work, and does not change the result.
    """
    entries = catalog.launch_order.entries()
    rows_M, turn_M = _oldest_of_each_minute(*entries, catalog.launch_sequence_V, catalog.count_V)
    rows_M = rows_M[np.argsort(turn_M, kind="stable")[:MAX_NEW_TITLES]]
    oldest_first_M = np.argsort(catalog.launch_sequence_V[rows_M])
    rows_M = rows_M[oldest_first_M]
    groups = group_texts(rows_M, catalog.semantic_VE[rows_M], NO_GROUPS if earlier is None else earlier.groups)
    minute_M, launched_M = launch_minutes(catalog, rows_M), catalog.launched_ms_V[rows_M]
    unrepeated_M = groups.leader_M == np.arange(len(rows_M))
    competing_M = launched_M > launched_M.max(initial=0) - NEW_TITLE_MS
    competing_M |= np.isin(minute_M, np.unique(minute_M[unrepeated_M])[-MIN_MINUTES:])
    competing_V = np.zeros(len(catalog), bool)
    competing_V[rows_M[competing_M]] = True
    newest_first_M = np.flatnonzero(competing_M)[::-1]
    return NewTitles(
        competing_V, rows_M[newest_first_M], minute_M[newest_first_M], groups.leader_M[newest_first_M], groups
    )


@njit(cache=True)
def _oldest_of_each_minute(
    row_X: NDArray[np.int32],
    sequence_X: NDArray[np.int64],
    minute_X: NDArray[np.int64],
    launch_sequence_V: NDArray[np.int64],
    count_V: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first MAX_PER_MINUTE new titles of each minute, newest minute first, and the position of each in its minute.

    Only the newest MAX_NEW_TITLES minutes that have a new title are read.
    """
    rows, turns = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)]  # numba needs their type
    minutes, end = 0, row_X.size
    while end > 0 and minutes < MAX_NEW_TITLES:
        start, turn = end - 1, 0
        if start > 0 and minute_X[start - 1] == minute_X[start]:
            start = np.searchsorted(minute_X[:end], minute_X[start])
        for x in range(start, end):
            row = row_X[x]
            if launch_sequence_V[row] == sequence_X[x] and count_V[row] < MIN_EVIDENCE:
                rows.append(np.int64(row))
                turns.append(np.int64(turn))
                turn += 1
                if turn == MAX_PER_MINUTE:
                    break
        minutes += turn > 0
        end = start
    return np.array(rows, np.int64), np.array(turns, np.int64)


def choose_scored(new_titles: NewTitles, score_M: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rows of the competing titles that the ranker scores for a list, given the linear score of each.

    They are the best of each launch minute, then the second best of each, up to MAX_PER_LIST titles.
    """
    best_first_M = np.argsort(-score_M, kind="stable")[: np.count_nonzero(score_M > -np.inf)]
    best_first_M = best_first_M[_rank_in_group(new_titles.text_M[best_first_M]) == 0]
    turn_M = _rank_in_group(new_titles.minute_M[best_first_M])
    in_turn_M = best_first_M[np.argsort(turn_M, kind="stable")]
    row_M: NDArray[np.int64] = new_titles.competing_M[in_turn_M[:MAX_PER_LIST]]
    return row_M


def launch_minutes(catalog: Catalog, rows_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """The minute in which each title launched."""
    minute_M: NDArray[np.int64] = catalog.launched_ms_V[rows_M] // MINUTE_MS
    return minute_M


def _rank_in_group(group_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """The position of each entry among the entries of its group."""
    order_M = np.argsort(group_M, kind="stable")
    sorted_M = group_M[order_M]
    first_G = np.flatnonzero(np.diff(sorted_M, prepend=sorted_M[:1] - 1))
    rank_M = np.empty(len(group_M), np.int64)
    rank_M[order_M] = np.arange(len(group_M)) - np.repeat(first_G, np.diff(first_G, append=len(group_M)))
    return rank_M


class NewCandidates(NamedTuple):
    """The new titles among the candidates of a list."""

    index_M: NDArray[np.int64]  # among the candidates
    cosine_MM: NDArray[np.float32]  # of their texts
    minute_M: NDArray[np.int64]  # of their launches
    competing_C: NDArray[np.bool_]  # the candidates that compete for slots


def new_candidates(catalog: Catalog, new_titles: NewTitles, rows_C: NDArray[np.int64]) -> NewCandidates:
    """The new titles among candidates. A row below 0 is a title that the catalog has evicted."""
    known_C = rows_C >= 0
    is_new_C = (catalog.launch_sequence_V[rows_C] < NOT_LAUNCHED) & (catalog.count_V[rows_C] < MIN_EVIDENCE)
    index_M = np.flatnonzero(is_new_C & known_C)
    text_ME = catalog.semantic_VE[rows_C[index_M]]
    minute_M = launch_minutes(catalog, rows_C[index_M])
    return NewCandidates(index_M, text_ME @ text_ME.T, minute_M, new_titles.competing_V[rows_C] & known_C)


@njit(cache=True)
def select_titles(new: NewCandidates, score_C: NDArray[np.float32], size: int, slots: int) -> NDArray[np.int64]:
    """Indices of the `size` best candidates, best first, with `slots` reserved for new titles."""
    order_M = np.argsort(-score_C[new.index_M], kind="mergesort")
    first_M, further_M = _first_of_each(new, order_M)
    competing_M = new.competing_C[new.index_M[order_M]]
    empty_slots = slots - int(np.sum(first_M & competing_M))
    empty_places = size - (score_C.size - order_M.size) - int(np.sum(first_M))
    kept_C = np.ones(score_C.size, np.bool_)
    for m in range(order_M.size):
        further, competing = further_M[m], further_M[m] and competing_M[m]
        kept_C[new.index_M[order_M[m]]] = (
            first_M[m] or (further and empty_places > 0) or (competing and empty_slots > 0)
        )
        empty_places -= further
        empty_slots -= competing
    kept_K = np.flatnonzero(kept_C)
    return kept_K[select_top(score_C[kept_K], new.competing_C[kept_K], size, slots)]


@njit(cache=True)
def _first_of_each(new: NewCandidates, order_M: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of new titles, best first: the first one of each minute, and the further ones; those that repeat the text of a
    better one are neither."""
    repeated_M, first_M = np.zeros(order_M.size, np.bool_), np.zeros(order_M.size, np.bool_)
    for m in range(order_M.size):
        this, first, repeated = order_M[m], True, False
        for better in range(m):
            if not repeated_M[better]:
                other = order_M[better]
                repeated = repeated or new.cosine_MM[this, other] >= NEAR_IDENTICAL
                first = first and new.minute_M[this] != new.minute_M[other]
        repeated_M[m], first_M[m] = repeated, first and not repeated
    return first_M, ~(first_M | repeated_M)


@njit(cache=True)
def select_top(
    score_C: NDArray[np.float32], new_C: NDArray[np.bool_], size: int, new_title_slots: int
) -> NDArray[np.int64]:
    """Indices of the `size` best candidates, best first, with slots reserved for unseen titles (`new_C`).

    The last `new_title_slots` positions go to the best unseen titles that are not in the list already, if there are
    any. Without reserved slots, an unseen title would lose against hundreds of proven titles and never be exposed.
    """
    order_C = np.argsort(-score_C, kind="mergesort")
    unreserved = min(max(size - new_title_slots, 0), order_C.size)
    reserved = 0  # slots that a new title beyond the unreserved positions fills
    for c in order_C[unreserved:]:
        reserved += new_C[c]
    reserved = min(reserved, new_title_slots)
    unfilled = min(size, order_C.size) - unreserved - reserved  # slots without a new title, open to any candidate
    chosen_C, n = np.empty(min(size, order_C.size), np.int64), 0
    for position, c in enumerate(order_C):
        if position >= unreserved and new_C[c] and reserved:
            reserved -= 1
        elif position >= unreserved and unfilled:
            unfilled -= 1
        elif position >= unreserved:
            continue
        chosen_C[n] = c
        n += 1
    return chosen_C[:n]
