"""Scores of titles by products of vectors: which titles are best for a query vector, and the scores of given titles.

N queries · V titles · M a subset of titles · P width of the vectors
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK_QUERIES: Final = 32  # scored together: one pass over the title vectors serves them all
SAMPLED_PART: Final = 8  # every eighth title is read to estimate the lowest of the best scores


class QueryScores(Protocol):
    """The scores of all titles for one query."""

    def best(self, count: int) -> NDArray[np.int64]:
        """Rows of about `count` titles with the highest scores, in any order."""
        ...

    def of(self, row_M: NDArray[np.integer]) -> NDArray[np.float32]:
        """The scores of these titles."""
        ...


class AllScores:
    """Scores that are computed for all titles."""

    def __init__(self, score_V: NDArray[np.float32]) -> None:
        self.score_V = score_V

    def best(self, count: int) -> NDArray[np.int64]:
        """Rows of about `count` titles with the highest scores, by the distribution of a sample of the scores.

        An exact choice takes five times as long at 10,000 titles. A score that many titles share is not chosen.
        """
        sample_M = self.score_V[::SAMPLED_PART]
        start = len(sample_M) - count // SAMPLED_PART
        if start <= 0:
            return np.arange(len(self.score_V))
        return np.flatnonzero(self.score_V > np.partition(sample_M, start - 1)[start - 1])

    def of(self, row_M: NDArray[np.integer]) -> NDArray[np.float32]:
        score_M: NDArray[np.float32] = self.score_V[row_M]
        return score_M


class BatchScores(Sequence[AllScores]):
    """The scores of several queries, computed for a block of queries when the first of them is read.

    `compute(queries)` gives [queries, V]. Only the last block is kept: at a million titles a block takes 128 MB.
    """

    def __init__(self, queries: int, compute: Callable[[slice], NDArray[np.float32]]) -> None:
        self._queries, self._compute = queries, compute
        self._block, self._score_NV = -1, np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return self._queries

    def __getitem__(self, n: int) -> AllScores:  # type: ignore[override]
        block, at = divmod(range(self._queries)[n], BLOCK_QUERIES)
        if block != self._block:
            part = slice(block * BLOCK_QUERIES, min((block + 1) * BLOCK_QUERIES, self._queries))
            self._block, self._score_NV = block, self._compute(part)
        return AllScores(self._score_NV[at])


def no_scores(queries: int, titles: int) -> BatchScores:
    """Scores of zero."""
    return BatchScores(queries, lambda part: np.zeros((part.stop - part.start, titles), np.float32))
