"""Each title's nearest titles by text, kept exact as titles come, so that a new title borrows what its likes have earned."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS: Final = 16
NONE: Final = -1


class TextNeighbours:
    """`to_VK` int32 rows of the nearest titles (-1: none), `cosine_VK` float32 their similarity, unordered."""

    def __init__(self, capacity: int) -> None:
        self.to_VK = np.full((capacity, NEIGHBOURS), NONE, np.int32)
        self.cosine_VK = np.zeros((capacity, NEIGHBOURS), np.float32)

    def update(self, semantic_VS: NDArray[np.float32], row: int) -> None:
        """Find the row's neighbours afresh and let it enter others' lists; rows without text have none."""
        self.forget(np.array([row]))
        cosine_V = semantic_VS @ semantic_VS[row]
        cosine_V[row] = 0
        near = (
            np.argpartition(-cosine_V, NEIGHBOURS)[:NEIGHBOURS]
            if len(cosine_V) > NEIGHBOURS
            else np.arange(len(cosine_V))
        )
        near = near[cosine_V[near] > 0]
        self.to_VK[row, : len(near)], self.cosine_VK[row, : len(near)] = near, cosine_V[near]
        weakest_V = self.cosine_VK[: len(cosine_V)].argmin(axis=1)
        everyone = np.arange(len(cosine_V))
        entered = np.flatnonzero(cosine_V > self.cosine_VK[everyone, weakest_V])
        self.to_VK[entered, weakest_V[entered]] = row
        self.cosine_VK[entered, weakest_V[entered]] = cosine_V[entered]

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Clear the rows' lists and their places in others'."""
        self.to_VK[rows], self.cosine_VK[rows] = NONE, 0
        gone = self.to_VK == rows[0] if len(rows) == 1 else np.isin(self.to_VK, rows)
        self.to_VK[gone], self.cosine_VK[gone] = NONE, 0

    def grow(self, capacity: int) -> None:
        """Room for `capacity` rows."""
        fresh = TextNeighbours(capacity - len(self.to_VK))
        self.to_VK = np.concatenate([self.to_VK, fresh.to_VK])
        self.cosine_VK = np.concatenate([self.cosine_VK, fresh.cosine_VK])

    def state_dict(self, titles: int) -> dict[str, Any]:
        return {"to_VK": self.to_VK[:titles].copy(), "cosine_VK": self.cosine_VK[:titles].copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.to_VK[: len(state["to_VK"])] = state["to_VK"]
        self.cosine_VK[: len(state["to_VK"])] = state["cosine_VK"]
