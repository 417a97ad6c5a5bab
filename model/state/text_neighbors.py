"""Each title's nearest titles by text, kept exact as titles come, so that a new title borrows what its likes have
earned."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NEIGHBORS: Final = 16
NONE: Final = -1
BLOCK: Final = 256  # rows updated at once: bounds the V x block matrix of cosines


class TextNeighbors:
    """`to_VK` int32 rows of the nearest titles (-1: none), `cosine_VK` float32 their similarity, unordered.

    Exact for titles that only ever come; where a title's text changes or it is evicted, the lists it leaves keep a gap
    until a newcomer fills it.
    """

    def __init__(self, capacity: int) -> None:
        self.to_VK = np.full((capacity, NEIGHBORS), NONE, np.int32)
        self.cosine_VK = np.zeros((capacity, NEIGHBORS), np.float32)

    def update(self, semantic_VS: NDArray[np.float32], rows: Sequence[int]) -> None:
        """Find these rows' neighbours afresh and let them enter others' lists; rows without text have none."""
        changed_M = np.array(rows, np.int64)
        self.forget(changed_M[(self.to_VK[changed_M] != NONE).any(axis=1)])
        own_V = np.zeros(len(semantic_VS), bool)
        own_V[changed_M] = True  # each of them looks at everybody, the others included
        for start in range(0, len(rows), BLOCK):
            self._update(semantic_VS, changed_M[start : start + BLOCK], own_V)

    def _update(self, semantic_VS: NDArray[np.float32], rows_M: NDArray[np.int64], own_V: NDArray[np.bool_]) -> None:
        cosine_MV = semantic_VS[rows_M] @ semantic_VS.T
        cosine_MV[np.arange(len(rows_M)), rows_M] = 0
        near_MK = np.arange(cosine_MV.shape[1])[None].repeat(len(rows_M), 0)
        if near_MK.shape[1] > NEIGHBORS:
            near_MK = np.argpartition(-cosine_MV, NEIGHBORS, axis=1)[:, :NEIGHBORS]
        near_cosine_MK = np.take_along_axis(cosine_MV, near_MK, 1)
        filled = near_cosine_MK > 0
        self.to_VK[rows_M, : near_MK.shape[1]] = np.where(filled, near_MK, NONE)
        self.cosine_VK[rows_M, : near_MK.shape[1]] = np.where(filled, near_cosine_MK, 0)
        floor_V = self.cosine_VK[: cosine_MV.shape[1]].min(axis=1)
        for row, cosine_V in zip(rows_M, cosine_MV, strict=True):
            entered = np.flatnonzero((cosine_V > floor_V) & ~own_V)
            if len(entered):
                weakest = self.cosine_VK[entered].argmin(axis=1)
                self.to_VK[entered, weakest], self.cosine_VK[entered, weakest] = row, cosine_V[entered]
                floor_V[entered] = self.cosine_VK[entered].min(axis=1)

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Clear the rows' lists and their places in others'."""
        if not len(rows):
            return
        self.to_VK[rows], self.cosine_VK[rows] = NONE, 0
        gone = np.isin(self.to_VK, rows)
        self.to_VK[gone], self.cosine_VK[gone] = NONE, 0

    def grow(self, capacity: int) -> None:
        """Room for `capacity` rows."""
        fresh = TextNeighbors(capacity - len(self.to_VK))
        self.to_VK = np.concatenate([self.to_VK, fresh.to_VK])
        self.cosine_VK = np.concatenate([self.cosine_VK, fresh.cosine_VK])

    def state_dict(self, titles: int) -> dict[str, Any]:
        return {"to_VK": self.to_VK[:titles].copy(), "cosine_VK": self.cosine_VK[:titles].copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.to_VK[: len(state["to_VK"])] = state["to_VK"]
        self.cosine_VK[: len(state["to_VK"])] = state["cosine_VK"]
