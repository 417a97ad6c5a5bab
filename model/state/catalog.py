"""The titles a learner knows: string ids to rows, and what is known of each row without any event.

Rows appear as ids do, with no rebuild and no fixed vocabulary; at the bound the least recently seen titles give theirs
up. A row exists as soon as a title launches or has an event; only a launched title that is not withdrawn is a
candidate.
"""

from collections.abc import Collection, Sequence
from itertools import repeat
from sys import intern
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.state.text_neighbors import TextNeighbors

NEVER: Final = np.iinfo(np.int64).max  # not launched, or withdrawn
GENRES: Final = 6  # of a title that count
CODES: Final = 1024  # of genres: among 64, four of MovieLens' nineteen were one
UNKNOWN: Final = np.iinfo(np.int64).min  # no release date
_ARRAYS: Final = ("semantic_VS", "born_V", "count_V", "year_V", "released_V", "genres_VG", "seen_V")


class Catalog:
    """Rows of titles; arrays are of `capacity` rows, of which the first `len(self)` have been used.

    semantic_VS float32 text vector, zero without text · born_V int64 log sequence of the launch, or NEVER where no
    candidate · count_V float32 events so far · year_V float32 or NaN · released_V int64 ms or UNKNOWN ·
    genres_VG int16 up to 6 genres hashed to 0..1023, -1 after them · seen_V int64 log sequence of the last mention
    """

    def __init__(self, d_text: int = 256, capacity: int = 1024) -> None:
        self.rows: dict[str, int] = {}
        self.ids: list[str] = []
        self.semantic_VS = np.zeros((capacity, d_text), np.float32)
        self.born_V = np.full(capacity, NEVER, np.int64)
        self.count_V = np.zeros(capacity, np.float32)
        self.year_V = np.full(capacity, np.nan, np.float32)
        self.released_V = np.full(capacity, UNKNOWN, np.int64)
        self.genres_VG = np.full((capacity, GENRES), -1, np.int16)
        self.seen_V = np.zeros(capacity, np.int64)
        self.text_neighbors = TextNeighbors(capacity)
        self.free: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def capacity(self) -> int:
        return len(self.born_V)

    def row(self, title: str, sequence: int) -> int:
        """The title's row, made if there is none yet; `sequence` is the log's place of this mention."""
        row = self.rows.get(title)
        if row is None:
            row = self._take_row(title)
        self.seen_V[row] = sequence
        return row

    def find(self, titles: Collection[str]) -> NDArray[np.int64]:
        """Rows of known titles, -1 for unknown ones; changes nothing."""
        return np.fromiter(map(self.rows.get, titles, repeat(-1)), np.int64, len(titles))

    def launch(
        self,
        row: int,
        semantic_S: NDArray[np.float32] | None,
        genres: Sequence[str],
        year: int | None,
        released: int | None,
        sequence: int,
    ) -> None:
        """Take in what a launch or a relaunch says; the first launch stays the title's birth. `update_text_neighbors`
        follows."""
        self.semantic_VS[row] = 0 if semantic_S is None else semantic_S
        self.born_V[row] = min(int(self.born_V[row]), sequence)
        self.year_V[row] = np.nan if year is None else year
        self.released_V[row] = UNKNOWN if released is None else released
        self.genres_VG[row] = genre_codes(genres)

    def update_text_neighbors(self, rows: Sequence[int]) -> None:
        """Bring the text neighbours of launched rows up to date: once a batch, for it looks at all titles."""
        if rows:
            self.text_neighbors.update(self.semantic_VS[: len(self)], sorted(set(rows)))

    def withdraw(self, row: int) -> None:
        """No candidate any more; its events and its id stay."""
        self.born_V[row] = NEVER

    def least_recent(self, most: int) -> NDArray[np.int64]:
        """Rows to evict so that at most `most` titles remain, some slack included; none while there is room."""
        used = len(self.rows)
        if used <= most:
            return np.zeros(0, np.int64)
        live = np.array(sorted(self.rows.values()), np.int64)
        order = live[np.argsort(self.seen_V[live], kind="stable")]
        return np.sort(order[: used - most + most // 50])

    def evict(self, rows: NDArray[np.int64]) -> None:
        """Free the rows; the caller clears its own arrays of them."""
        for row in rows.tolist():
            del self.rows[self.ids[row]]
            self.ids[row] = ""
        self.semantic_VS[rows], self.born_V[rows], self.count_V[rows] = 0, NEVER, 0
        self.year_V[rows], self.released_V[rows], self.genres_VG[rows] = np.nan, UNKNOWN, -1
        self.text_neighbors.forget(rows)
        self.free.extend(rows.tolist())

    def state_dict(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name)[: len(self)].copy() for name in _ARRAYS}
        return {
            "ids": list(self.ids),
            "free": list(self.free),
            "similar": self.text_neighbors.state_dict(len(self)),
            **arrays,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ids, self.free = [intern(title) for title in state["ids"]], list(state["free"])
        self.rows = {title: row for row, title in enumerate(self.ids) if title}
        while self.capacity < len(self.ids):
            self._grow()
        for name in _ARRAYS:
            getattr(self, name)[: len(self.ids)] = state[name]
        self.text_neighbors.load_state_dict(state["similar"])

    def _take_row(self, title: str) -> int:
        title = intern(title)  # as histories are: found by identity, without comparing letters
        if self.free:
            row = self.free.pop()
            self.ids[row] = title
        else:
            row = len(self.ids)
            if row == self.capacity:
                self._grow()
            self.ids.append(title)
        self.rows[title] = row
        return row

    def _grow(self) -> None:
        fresh = Catalog(self.semantic_VS.shape[1], self.capacity)
        for name in _ARRAYS:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(fresh, name)]))
        self.text_neighbors.grow(self.capacity)


def genre_codes(genres: Sequence[str]) -> NDArray[np.int16]:
    """The first GENRES genres as numbers below CODES, by a hash that is the same in every process; -1 after them."""
    codes = []
    for genre in dict.fromkeys(genre.strip().lower() for genre in genres):
        digest = 2166136261  # FNV-1a: Python's own hash differs from process to process
        for byte in genre.encode():
            digest = ((digest ^ byte) * 16777619) & 0xFFFFFFFF
        codes.append((digest ^ digest >> 16) % CODES)  # its low bits alone spread badly
    return np.array((codes + [-1] * GENRES)[:GENRES], np.int16)
