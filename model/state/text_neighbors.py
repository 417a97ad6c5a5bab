"""Maintains each title's nearest titles by text similarity, incrementally as titles launch.

A new title without events borrows the signals of its text neighbors.

V titles · E width of a text embedding · K neighbors of a title · M updated titles
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NEIGHBORS_PER_TITLE: Final = 16
NO_NEIGHBOR: Final = -1
UPDATE_BLOCK_ROWS: Final = 256  # rows updated at a time: bounds the [M, V] matrix of cosines


class TextNeighbors:
    """Unordered neighbor lists. They are exact as long as titles are only added.

    When a title's text changes or the title is evicted, the lists that contained it keep a gap until a later title
    fills it.
    """

    def __init__(self, capacity: int) -> None:
        self.to_VK = np.full((capacity, NEIGHBORS_PER_TITLE), NO_NEIGHBOR, np.int32)  # rows of the nearest titles
        self.cosine_VK = np.zeros((capacity, NEIGHBORS_PER_TITLE), np.float32)  # their cosine similarity

    def update(self, semantic_VE: NDArray[np.float32], rows: Sequence[int]) -> None:
        """Recompute these rows' neighbors and insert the rows into other titles' lists; without text, none."""
        changed_M = np.array(rows, np.int64)
        self.remove(changed_M[(self.to_VK[changed_M] != NO_NEIGHBOR).any(axis=1)])
        changed_V = np.zeros(len(semantic_VE), bool)
        changed_V[changed_M] = True  # their own lists already consider every title
        for start in range(0, len(rows), UPDATE_BLOCK_ROWS):
            self._update(semantic_VE, changed_M[start : start + UPDATE_BLOCK_ROWS], changed_V)

    def _update(
        self, semantic_VE: NDArray[np.float32], rows_M: NDArray[np.int64], changed_V: NDArray[np.bool_]
    ) -> None:
        cosine_MV = semantic_VE[rows_M] @ semantic_VE.T
        cosine_MV[np.arange(len(rows_M)), rows_M] = 0
        nearest_MK = np.arange(cosine_MV.shape[1])[None].repeat(len(rows_M), 0)
        if nearest_MK.shape[1] > NEIGHBORS_PER_TITLE:
            nearest_MK = np.argpartition(-cosine_MV, NEIGHBORS_PER_TITLE, axis=1)[:, :NEIGHBORS_PER_TITLE]
        nearest_cosine_MK = np.take_along_axis(cosine_MV, nearest_MK, 1)
        filled = nearest_cosine_MK > 0
        self.to_VK[rows_M, : nearest_MK.shape[1]] = np.where(filled, nearest_MK, NO_NEIGHBOR)
        self.cosine_VK[rows_M, : nearest_MK.shape[1]] = np.where(filled, nearest_cosine_MK, 0)
        weakest_V = self.cosine_VK[: cosine_MV.shape[1]].min(axis=1)
        for row, cosine_V in zip(rows_M, cosine_MV, strict=True):
            entered = np.flatnonzero((cosine_V > weakest_V) & ~changed_V)
            if len(entered):
                replaced = self.cosine_VK[entered].argmin(axis=1)
                self.to_VK[entered, replaced], self.cosine_VK[entered, replaced] = row, cosine_V[entered]
                weakest_V[entered] = self.cosine_VK[entered].min(axis=1)

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Clear the rows' lists and remove the rows from all other lists."""
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

    def state_dict(self, titles: int) -> dict[str, Any]:
        return {"to_VK": self.to_VK[:titles].copy(), "cosine_VK": self.cosine_VK[:titles].copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.to_VK[: len(state["to_VK"])] = state["to_VK"]
        self.cosine_VK[: len(state["to_VK"])] = state["cosine_VK"]
