"""Maintains each title's nearest titles by text similarity, incrementally as titles launch and settle.

A new title without events borrows the signals of its text neighbors. Titles that nobody watches are neighbors too: they
show that titles of their kind are rarely watched. A launch shows nothing yet, so it is nobody's neighbor until it has
settled, by an event or by a day without one (`StreamState.launch`). A flood of invented launches therefore changes no
other title's neighbors. In a large catalog only the titles in close cells are compared (model/state/title_cells.py).

V titles · E width of a text embedding · K neighbors of a title · M updated titles
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.state.title_cells import TitleCells

NEIGHBORS_PER_TITLE: Final = 16  # nearest titles by text; not measured
NO_NEIGHBOR: Final = -1
UPDATE_BLOCK_ROWS: Final = 256  # rows updated at a time: bounds the [M, V] matrix of cosines


class TextNeighbors:
    """Unordered neighbor lists. They are exact as long as titles are only added.

    When a title's text changes or the title is evicted, the lists that contained it keep a gap until a later neighbor
    fills it.
    """

    def __init__(self, capacity: int) -> None:
        self.to_VK = np.full((capacity, NEIGHBORS_PER_TITLE), NO_NEIGHBOR, np.int32)  # rows of the nearest titles
        self.cosine_VK = np.zeros((capacity, NEIGHBORS_PER_TITLE), np.float32)  # their cosine similarity
        self.settled_V = np.zeros(capacity, np.bool_)  # whether the title may be a neighbor

    def settle(self, semantic_VE: NDArray[np.float32], rows_M: NDArray[np.int64], cells: TitleCells) -> None:
        """Insert titles that have settled into the other titles' lists; without text, they are in none."""
        self.settled_V[rows_M] = True
        with_text_M = rows_M[semantic_VE[rows_M].any(axis=1)]
        self._insert(semantic_VE, with_text_M, np.ones(len(semantic_VE), bool), cells)

    def update(self, semantic_VE: NDArray[np.float32], rows: Sequence[int], cells: TitleCells) -> None:
        """Recompute these rows' neighbors and insert the settled ones into other titles' lists; without text, none."""
        changed_M = np.array(rows, np.int64)
        settled_M = self.settled_V[changed_M]
        self._clear(changed_M[(self.to_VK[changed_M] != NO_NEIGHBOR).any(axis=1) | settled_M])
        for row, other_M, cosine_M in _compared(semantic_VE, changed_M, cells):
            self._find(row, other_M, cosine_M)
        unchanged_V = np.ones(len(semantic_VE), bool)
        unchanged_V[changed_M] = False  # the lists of the others already consider every title
        self._insert(semantic_VE, changed_M[settled_M], unchanged_V, cells)

    def _find(self, row: int, other_M: NDArray[np.int64], cosine_M: NDArray[np.float32]) -> None:
        """Fill the list of a row from these titles."""
        cosine_M = np.where(self.settled_V[other_M], cosine_M, 0)
        nearest_K = np.arange(len(other_M))
        if len(nearest_K) > NEIGHBORS_PER_TITLE:
            nearest_K = np.argpartition(-cosine_M, NEIGHBORS_PER_TITLE)[:NEIGHBORS_PER_TITLE]
        filled = cosine_M[nearest_K] > 0
        self.to_VK[row, : len(nearest_K)] = np.where(filled, other_M[nearest_K], NO_NEIGHBOR)
        self.cosine_VK[row, : len(nearest_K)] = np.where(filled, cosine_M[nearest_K], 0)

    def _insert(
        self,
        semantic_VE: NDArray[np.float32],
        rows_M: NDArray[np.int64],
        open_V: NDArray[np.bool_],
        cells: TitleCells,
    ) -> None:
        """Insert the rows into the lists of the titles in `open_V` that they are nearer to than the last neighbor."""
        for row, other_M, cosine_M in _compared(semantic_VE, rows_M, cells):
            near = np.flatnonzero((cosine_M > 0) & open_V[other_M])
            near = near[cosine_M[near] > self.cosine_VK[other_M[near]].min(axis=1)]
            entered = other_M[near]
            replaced = self.cosine_VK[entered].argmin(axis=1)
            self.to_VK[entered, replaced], self.cosine_VK[entered, replaced] = row, cosine_M[near]

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Clear the rows' lists and remove the rows from all other lists; they are unsettled again."""
        self._clear(rows)
        self.settled_V[rows] = False

    def _clear(self, rows: NDArray[np.int64]) -> None:
        if not len(rows):
            return
        self.to_VK[rows], self.cosine_VK[rows] = NO_NEIGHBOR, 0
        removed = np.isin(self.to_VK, rows)
        self.to_VK[removed], self.cosine_VK[removed] = NO_NEIGHBOR, 0

    def grow(self, capacity: int) -> None:
        """Extend the arrays to `capacity` rows."""
        added = TextNeighbors(capacity - len(self.to_VK))
        self.to_VK = np.concatenate([self.to_VK, added.to_VK])
        self.cosine_VK = np.concatenate([self.cosine_VK, added.cosine_VK])
        self.settled_V = np.concatenate([self.settled_V, added.settled_V])

    def state_dict(self, titles: int) -> dict[str, Any]:
        arrays = {"to_VK": self.to_VK, "cosine_VK": self.cosine_VK, "settled_V": self.settled_V}
        return {name: array[:titles].copy() for name, array in arrays.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        titles = len(state["to_VK"])
        self.to_VK[:titles], self.cosine_VK[:titles] = state["to_VK"], state["cosine_VK"]
        self.settled_V[:titles] = state["settled_V"]


def _compared(
    semantic_VE: NDArray[np.float32], rows_M: NDArray[np.int64], cells: TitleCells
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
    """Each of the rows, with the titles whose text it is compared with, and the cosines; 0 with itself."""
    all_M = np.arange(len(semantic_VE))
    for start in range(0, len(rows_M), UPDATE_BLOCK_ROWS):
        block_M = rows_M[start : start + UPDATE_BLOCK_ROWS]
        if cells.is_ready:
            others = cells.proposed(semantic_VE[block_M])
            cosines = [cells.scores(semantic_VE[row], other_M) for row, other_M in zip(block_M, others, strict=True)]
        else:
            others, cosines = [all_M] * len(block_M), list(semantic_VE[block_M] @ semantic_VE.T)
        for row, other_M, cosine_M in zip(block_M.tolist(), others, cosines, strict=True):
            yield row, other_M, np.where(other_M == row, np.float32(0), cosine_M)
