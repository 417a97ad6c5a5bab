"""Maintains the mean of the titles' texts, and each text's distance from it, as titles launch and settle.

Most of the cosine of two embeddings comes from components that all texts have in common. Centering raises the share of
next titles among the nearest 100 from 0.024 to 0.063 (ml-small-2016, 749 samples). The mean is that of the settled
titles (model/state/text_neighbors.py). Invented launches would otherwise move it, and so change every text signal. All
titles together count as PRIOR_TITLES more, because a stream begins without settled ones.

The distances of all texts depend on the mean. They are computed anew only when the mean has moved by more than
MAX_SHIFT; usually a launch computes those of changed texts only.

V titles · E width of a text embedding · M a subset of titles
"""

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

PRIOR_TITLES: Final = 16  # weight of the mean text of all titles, in settled titles
MAX_SHIFT: Final = 0.01  # distance between the mean in use and the present one; texts have length 1
ALWAYS_CURRENT_TITLES: Final = 2_048  # in a catalog of at most this many titles, the mean in use is the present one


class TextCenter:
    """The centered text of a title is (text - center_E) * inverse_distance_V, a unit vector; 0 without a text."""

    def __init__(self, d_text: int, capacity: int) -> None:
        self.center_E = np.zeros(d_text, np.float32)  # in use
        self.inverse_distance_V = np.zeros(capacity, np.float32)
        self._sum_2E = np.zeros((2, d_text))  # of the texts of settled titles, and of all
        self._texts_2 = np.zeros(2, np.int64)  # their numbers

    def replace(self, old_E: NDArray[np.float32], new_E: NDArray[np.float32], settled: bool) -> None:
        """Count a new text of a title in place of its old one; zeros are no text."""
        of_title = slice(0 if settled else 1, 2)
        self._sum_2E[of_title] += new_E.astype(np.float64) - old_E
        self._texts_2[of_title] += int(new_E.any()) - int(old_E.any())

    def settle(self, text_ME: NDArray[np.float32]) -> None:
        """Count the texts of titles that have settled."""
        self._sum_2E[0] += text_ME.sum(axis=0, dtype=np.float64)
        self._texts_2[0] += np.count_nonzero(text_ME.any(axis=1))

    def update(self, text_VE: NDArray[np.float32], changed_M: NDArray[np.int64]) -> None:
        """Take the changed texts over, and the present mean if it has moved far."""
        settled, texts = map(int, self._texts_2)
        if texts:
            mean_E = (self._sum_2E[0] + PRIOR_TITLES / texts * self._sum_2E[1]) / (settled + PRIOR_TITLES)
            moved = float(np.linalg.norm(mean_E - self.center_E))
            if moved > (0 if len(text_VE) <= ALWAYS_CURRENT_TITLES else MAX_SHIFT):
                self.center_E = mean_E.astype(np.float32)
                changed_M = np.arange(len(text_VE))
        _measure(text_VE, changed_M, self.center_E, self.inverse_distance_V)

    def centered(self, text_VE: NDArray[np.float32], row_M: NDArray[np.integer]) -> NDArray[np.float32]:
        """The centered texts of these titles: [M, E]."""
        centered_ME: NDArray[np.float32] = text_VE[row_M] - self.center_E
        centered_ME *= self.inverse_distance_V[row_M][:, None]
        return centered_ME

    def grow(self, capacity: int) -> None:
        """Extend the arrays to `capacity` rows."""
        added = np.zeros(capacity - len(self.inverse_distance_V), np.float32)
        self.inverse_distance_V = np.concatenate([self.inverse_distance_V, added])

    def state_dict(self) -> dict[str, Any]:
        return {"center_E": self.center_E.copy(), "sum_2E": self._sum_2E.copy(), "texts_2": self._texts_2.copy()}

    def load_state_dict(self, state: dict[str, Any], text_VE: NDArray[np.float32]) -> None:
        """Restore a state that `state_dict` returned, with the catalog's texts."""
        self.center_E, self._sum_2E, self._texts_2 = (state[name].copy() for name in ("center_E", "sum_2E", "texts_2"))
        _measure(text_VE, np.arange(len(text_VE)), self.center_E, self.inverse_distance_V)


@njit(cache=True)
def _measure(
    text_VE: NDArray[np.float32],
    row_M: NDArray[np.int64],
    center_E: NDArray[np.float32],
    inverse_distance_V: NDArray[np.float32],
) -> None:
    """Write the inverse distance of each text from the center; 0 without a text."""
    for row in row_M:
        square, has_text = np.float32(0.0), False
        for e in range(center_E.size):
            difference = text_VE[row, e] - center_E[e]
            square += difference * difference
            has_text = has_text or text_VE[row, e] != 0.0
        inverse_distance_V[row] = np.float32(1.0) / max(np.sqrt(square), np.float32(1e-6)) if has_text else 0.0
