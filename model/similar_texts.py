"""Groups new titles whose texts are near-identical, again and again as titles launch and are no longer new.

The oldest title of a group is its leader. In the order of their launches, a title joins the oldest leader to which it
is near-identical, or becomes a leader. Earlier groups are used again, and only added titles are compared. All
groups are computed again if a leader with followers has left, a text has changed, or a title was inserted before an
earlier one.

M titles, oldest launch first · E width of a text embedding
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

NEAR_IDENTICAL: Final = 0.97  # cosine of two text embeddings; two parts of one series have less in ml-small-2016


class TextGroups(NamedTuple):
    """Titles by the text that they repeat."""

    row_M: NDArray[np.int64]
    text_ME: NDArray[np.float32]  # a copy
    leader_M: NDArray[np.int64]  # position of each title's leader; its own for a leader


NO_GROUPS: Final = TextGroups(np.zeros(0, np.int64), np.zeros((0, 0), np.float32), np.zeros(0, np.int64))


def group_texts(row_M: NDArray[np.int64], text_ME: NDArray[np.float32], earlier: TextGroups) -> TextGroups:
    """The groups of these titles.

    `earlier` is a result for an earlier state: it saves work, and does not change the result.
    """
    kept_M = _still_valid(row_M, text_ME, earlier)
    position_M = np.full(len(earlier.row_M), -1)
    position_M[kept_M] = np.arange(len(kept_M))
    leader_M = np.concatenate([position_M[earlier.leader_M[kept_M]], np.arange(len(kept_M), len(row_M))])
    _join(leader_M, len(kept_M), text_ME)
    return TextGroups(row_M, text_ME, leader_M)


def _still_valid(row_M: NDArray[np.int64], text_ME: NDArray[np.float32], earlier: TextGroups) -> NDArray[np.int64]:
    """Positions in `earlier` of the titles that can be reused as the first ones of `row_M`; empty if none can."""
    kept_M = np.flatnonzero(np.isin(earlier.row_M, row_M))
    is_kept_M = np.zeros(len(earlier.row_M), bool)
    is_kept_M[kept_M] = True
    is_same = (
        np.array_equal(earlier.row_M[kept_M], row_M[: len(kept_M)])
        and np.array_equal(earlier.text_ME[kept_M], text_ME[: len(kept_M)])
        and bool(is_kept_M[earlier.leader_M[kept_M]].all())
    )
    return kept_M if is_same else kept_M[:0]


@njit(cache=True, fastmath=True)
def _join(leader_M: NDArray[np.int64], start: int, text_ME: NDArray[np.float32]) -> None:
    """Let the titles from `start` on join their leaders. Each cosine is a sum in one fixed order, so that it has the
    same bits whatever else is compared."""
    for m in range(start, leader_M.size):
        for older in range(m):
            if leader_M[older] == older and _cosine(text_ME[m], text_ME[older]) >= NEAR_IDENTICAL:
                leader_M[m] = older
                break


@njit(cache=True, fastmath=True)
def _cosine(first_E: NDArray[np.float32], second_E: NDArray[np.float32]) -> np.float32:
    total = np.float32(0.0)
    for e in range(first_E.size):
        total += first_E[e] * second_E[e]
    return total
