"""Groups titles with similar vectors into cells, so that a query finds its best titles without reading all of them.

This is an inverted-file index (Sivic and Zisserman 2003): a query reads the cells whose centers are closest to it. The
cells propose titles, and scores come from the titles' present vectors, quantized to one signed byte per number. These
are stored in the order of the lists, because most of a query's time is reading vectors from the memory. A title whose
vector has moved to another cell, and a new title, are read by every query until the lists of the cells are made again.
The centers are those of k-means by the package faiss (extra `index`). Without it, and in a catalog below MIN_TITLES,
there are no cells, and queries read all titles.

A title's cell depends on the log, and on whether faiss is installed: install it for all processes or for none.
It is saved in checkpoints.

V titles · P width of the vectors · C cells · M a subset of titles · Q queries · X titles in the order of the lists
"""

from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

# One core: reading all of 100,000 texts takes a query 2 ms, reading 16 of 1,024 cells 1 ms at any size (measured).
MIN_TITLES: Final = 100_000
CELLS: Final = 1_024
PROBED_CELLS: Final = 16  # that a query reads; among 200,000 texts they hold 0.975 of its best 300 (measured)
GROWTH: Final = 2  # the centers are computed anew when the catalog has grown by this factor
TRAINING_TITLES_PER_CELL: Final = 64  # sampled for k-means
TRAINING_ROUNDS: Final = 8
MAX_MOVED_SHARE: Final = 100  # the lists are made again when 1/100 of the titles are in no list or in a wrong one
_BLOCK_ROWS: Final = 8_192  # assigned together
NO_CELL: Final = -1
MAX_CODE: Final = 127  # of a signed byte
NO_SLOT: Final = -1


class TitleCells:
    """The cells of one kind of vectors. Vectors have unit length, or are zero."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.center_CP = np.zeros((0, 0), np.float32)
        self.cell_V = np.zeros(0, np.int16)  # NO_CELL for a title that was never assigned
        self._titles = 0  # when the centers were computed
        self._row_X = np.zeros(0, np.int32)  # the lists: rows by cell
        self._start_C = np.zeros(1, np.int64)  # of each cell's list, and the end
        self._moved: set[int] = set()  # rows that are in no list, or in a wrong one
        # Quantized vectors. Title v has slot _slot_V[v], or NO_SLOT; its numbers are _code_XP[slot] * _step_X[slot].
        # The slots are in the order of the lists, then of arrival.
        self._slot_V = np.zeros(0, np.int32)
        self._code_XP, self._step_X = np.zeros((0, 0), np.int8), np.zeros(0, np.float32)
        self._slot_count = 0  # slots in use

    @property
    def is_ready(self) -> bool:
        """Whether there are cells."""
        return len(self.center_CP) > 0

    def update(self, vector_VP: NDArray[np.float32], row_M: NDArray[np.int64]) -> None:
        """Take over the vectors of these titles, which must include all new ones."""
        titles = len(vector_VP)
        if titles >= max(MIN_TITLES, GROWTH * self._titles) and find_spec("faiss") is not None:
            self._compute_centers(vector_VP)
            row_M = np.arange(titles)
        if not self.is_ready:
            return
        if len(self.cell_V) < titles:
            added = np.full(max(titles, len(self.cell_V) * 5 // 4) - len(self.cell_V), NO_CELL, np.int16)
            self.cell_V = np.concatenate([self.cell_V, added])
        self._encode(vector_VP, row_M)
        cell_M = self._closest(vector_VP, row_M)
        moved = cell_M != self.cell_V[row_M]
        self.cell_V[row_M] = cell_M
        self._moved.update(row_M[moved].tolist())
        if len(self._moved) > titles // MAX_MOVED_SHARE:
            self._make_lists(titles)

    def proposed(self, query_QP: NDArray[np.float32]) -> list[NDArray[np.int64]]:
        """For each query, the rows in the cells closest to it, and those that are in no list."""
        score_QC = query_QP @ self.center_CP.T
        probed_QC = np.argpartition(-score_QC, min(PROBED_CELLS, len(self.center_CP)) - 1, axis=1)[:, :PROBED_CELLS]
        moved_M, start_C = np.array(sorted(self._moved), np.int64), self._start_C
        return [
            np.concatenate([moved_M, *(self._row_X[start_C[c] : start_C[c + 1]] for c in cells)])
            for cells in probed_QC.tolist()
        ]

    def scores(self, query_P: NDArray[np.float32], row_M: NDArray[np.integer]) -> NDArray[np.float32]:
        """The products of these titles' vectors with a query; 0 for a title that came after the last update."""
        score_M: NDArray[np.float32] = _products(self._code_XP, self._step_X, self._slot_V, row_M, query_P)
        return score_M

    def _encode(self, vector_VP: NDArray[np.float32], row_M: NDArray[np.int64]) -> None:
        """Quantize the vectors of these titles."""
        missing = max(0, len(self.cell_V) - len(self._slot_V))
        self._slot_V = np.concatenate([self._slot_V, np.full(missing, NO_SLOT, np.int32)])
        new_M = row_M[self._slot_V[row_M] == NO_SLOT]
        self._slot_V[new_M] = np.arange(self._slot_count, self._slot_count + len(new_M))
        self._slot_count += len(new_M)
        if (missing := self._slot_count - len(self._step_X)) > 0:
            added = max(missing, len(self._step_X) // 4)
            added_XP = np.zeros((added, vector_VP.shape[1]), np.int8)
            self._code_XP = np.concatenate([self._code_XP.reshape(-1, vector_VP.shape[1]), added_XP])
            self._step_X = np.concatenate([self._step_X, np.zeros(added, np.float32)])
        _quantize(vector_VP, row_M, self._slot_V, self._code_XP, self._step_X)

    def _compute_centers(self, vector_VP: NDArray[np.float32]) -> None:
        import faiss  # takes a tenth of a second, and only large catalogs need it

        self._titles = len(vector_VP)
        sampled = np.random.default_rng(self.seed).permutation(self._titles)[: CELLS * TRAINING_TITLES_PER_CELL]
        sample_MP = np.ascontiguousarray(vector_VP[np.sort(sampled)])
        faiss.omp_set_num_threads(1)  # the order of sums, and so the centers, must not depend on the threads
        options = {"niter": TRAINING_ROUNDS, "seed": self.seed, "spherical": True}
        kmeans = faiss.Kmeans(
            vector_VP.shape[1], CELLS, min_points_per_centroid=1, max_points_per_centroid=len(sample_MP), **options
        )
        kmeans.train(sample_MP)
        self.center_CP = np.asarray(kmeans.centroids, np.float32)
        self.cell_V, self._moved = np.full(self._titles, NO_CELL, np.int16), set()

    def _closest(self, vector_VP: NDArray[np.float32], row_M: NDArray[np.int64]) -> NDArray[np.int16]:
        """The cell of each title."""
        center_PC, cell_M = torch.from_numpy(self.center_CP).T, np.empty(len(row_M), np.int16)
        for start in range(0, len(row_M), _BLOCK_ROWS):
            vectors = torch.from_numpy(vector_VP[row_M[start : start + _BLOCK_ROWS]])
            cell_M[start : start + _BLOCK_ROWS] = (vectors @ center_PC).argmax(1).numpy()
        return cell_M

    def _make_lists(self, titles: int) -> None:
        cell_V = self.cell_V[:titles]
        self._row_X = np.argsort(cell_V, kind="stable").astype(np.int32)
        self._start_C = np.searchsorted(cell_V[self._row_X], np.arange(len(self.center_CP) + 1))
        self._moved = set()
        slot_X = self._slot_V[self._row_X]
        self._code_XP, self._step_X = self._code_XP[slot_X], self._step_X[slot_X]
        self._slot_V[self._row_X], self._slot_count = np.arange(titles), titles

    def state_dict(self, titles: int) -> dict[str, Any]:
        return {
            "center_CP": self.center_CP.copy(),
            "cell_V": self.cell_V[:titles].copy(),
            "titles": self._titles,
            "row_X": self._row_X.copy(),
            "start_C": self._start_C.copy(),
            "moved": sorted(self._moved),
        }

    def load_state_dict(self, state: dict[str, Any], vector_VP: NDArray[np.float32]) -> None:
        """Restore a state that `state_dict` returned, with the vectors as of the last update."""
        self.center_CP, self.cell_V = state["center_CP"].copy(), state["cell_V"].copy()
        self._row_X, self._start_C = state["row_X"].copy(), state["start_C"].copy()
        self._titles, self._moved = state["titles"], set(state["moved"])
        self._slot_V, self._step_X, self._slot_count = np.zeros(0, np.int32), np.zeros(0, np.float32), 0
        self._code_XP = np.zeros((0, 0), np.int8)
        if self.is_ready:
            others_V = self.cell_V != NO_CELL  # a title that came after the last update has no cell and no slot yet
            others_V[self._row_X] = False
            self._encode(vector_VP, np.concatenate([self._row_X, np.flatnonzero(others_V)]))


@njit(cache=True)
def _quantize(
    vector_VP: NDArray[np.float32],
    row_M: NDArray[np.int64],
    slot_V: NDArray[np.int32],
    code_XP: NDArray[np.int8],
    step_X: NDArray[np.float32],
) -> None:
    """Write each vector as whole numbers of its step, which is its largest absolute number divided by MAX_CODE."""
    for row in row_M:
        x = slot_V[row]
        largest = np.float32(0.0)
        for p in range(vector_VP.shape[1]):
            largest = max(largest, abs(vector_VP[row, p]))
        step_X[x] = largest / np.float32(MAX_CODE)
        steps = np.float32(MAX_CODE) / largest if largest > 0 else np.float32(0.0)
        for p in range(vector_VP.shape[1]):
            code_XP[x, p] = np.int8(np.rint(vector_VP[row, p] * steps))


@njit(cache=True, fastmath=True)
def _products(
    code_XP: NDArray[np.int8],
    step_X: NDArray[np.float32],
    slot_V: NDArray[np.int32],
    row_M: NDArray[np.integer],
    query_P: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The products of the rows' vectors with the query; sums are reordered, so that they use vector instructions."""
    score_M = np.zeros(row_M.size, np.float32)
    for m in range(row_M.size):
        row, total = row_M[m], np.float32(0.0)
        x = slot_V[row] if row < slot_V.size else NO_SLOT
        if x != NO_SLOT:
            for p in range(query_P.size):
                total += np.float32(code_XP[x, p]) * query_P[p]
            score_M[m] = total * step_X[x]
    return score_M
