"""The catalog maps title ids to array rows and stores each title's metadata.

The vocabulary is open: a title gets a row without a rebuild, at its launch or once enough users have an event on it
(model/state/admission.py). When the catalog exceeds its maximum size, titles are evicted and their rows are reused. The
titles that never launched are evicted first, then the least recently used ones. A launched title is never evicted for
one that never launched. A title is a candidate only between its launch and its withdrawal.

V titles · E width of a text embedding · G genres of a title
"""

from collections.abc import Collection, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.state.id_table import shared_id
from model.state.launch_order import MIN_EVIDENCE, LaunchOrder
from model.state.text_center import TextCenter
from model.state.text_neighbors import TextNeighbors
from model.state.title_cells import TitleCells

NOT_LAUNCHED: Final = np.iinfo(np.int64).max  # launch sequence of a title that is not launched or is withdrawn
UNKNOWN_DATE: Final = np.iinfo(np.int64).min  # release date of a title without one
UNKNOWN_ROW: Final = -1  # row of a title that is not in the catalog
NO_GENRE: Final = -1  # fills genres_VG after a title's genres
GENRES_PER_TITLE: Final = 6  # further genres are ignored
GENRE_CODES: Final = 1024  # hash buckets; with 64, four of the 19 MovieLens genres collided
EVICTION_SLACK: Final = 50  # an eviction frees another 1/50 of the maximum, so that not every batch evicts
_ARRAYS: Final = (
    "semantic_VE",
    "launch_sequence_V",
    "launched_V",
    "launched_ms_V",
    "count_V",
    "year_V",
    "released_V",
    "genres_VG",
    "last_used_V",
    "stamp_V",
)


class Catalog:
    """Rows of titles. The arrays have `capacity` rows, of which the first `len(self)` have been used."""

    def __init__(self, d_text: int = 256, capacity: int = 1024) -> None:
        self.rows: dict[str, int] = {}  # title id to row
        self.ids: list[str] = []  # row to title id, "" for a free row
        self.semantic_VE = np.zeros((capacity, d_text), np.float32)  # unit text embeddings, zero without text
        self.launch_sequence_V = np.full(capacity, NOT_LAUNCHED, np.int64)  # log sequence of the first launch
        self.launched_V = np.zeros(capacity, np.bool_)  # whether the title ever launched; stays at a withdrawal
        self.launched_ms_V = np.zeros(capacity, np.int64)  # when the log took the launch
        self.count_V = np.zeros(capacity, np.float32)  # events so far, each by its evidence
        self.year_V = np.full(capacity, np.nan, np.float32)  # release year, NaN if unknown
        self.released_V = np.full(capacity, UNKNOWN_DATE, np.int64)  # release date in ms
        self.genres_VG = np.full((capacity, GENRES_PER_TITLE), NO_GENRE, np.int16)  # genre codes, then NO_GENRE
        self.last_used_V = np.zeros(capacity, np.int64)  # log sequence of the last launch or event
        self.stamp_V = np.zeros(capacity, np.int64)  # newest stamp of a record of the title, us; 0 if it has none
        self.text_neighbors = TextNeighbors(capacity)
        self.text_center = TextCenter(d_text, capacity)
        self.text_cells = TitleCells()
        self.launch_order = LaunchOrder()
        self._changed_texts: list[int] = []  # rows that are new or whose text changed since `update_texts`
        self.free: list[int] = []  # rows of evicted titles

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def capacity(self) -> int:
        return len(self.launch_sequence_V)

    @property
    def candidate_V(self) -> NDArray[np.bool_]:
        """Whether each title is launched and not withdrawn."""
        return self.launch_sequence_V[: len(self)] < NOT_LAUNCHED

    def ensure_row(self, title: str, sequence: int) -> int:
        """Return the title's row, added if it is missing; `sequence` is the log sequence of this use."""
        row = self.rows.get(title)
        if row is None:
            row = self._add_row(title)
        self.last_used_V[row] = sequence
        return row

    def rows_of(self, titles: Collection[str]) -> NDArray[np.int64]:
        """Return the titles' rows, UNKNOWN_ROW for unknown titles; the catalog does not change."""
        return np.fromiter(map(self.rows.get, titles, repeat(UNKNOWN_ROW)), np.int64, len(titles))

    def launch(
        self,
        row: int,
        semantic_E: NDArray[np.float32] | None,
        genres: Sequence[str],
        year: int | None,
        released: int | None,
        sequence: int,
        recorded: int = 0,
    ) -> None:
        """Store the metadata of a launch or a relaunch; a relaunch keeps the sequence and time of the first launch.

        `recorded` is the time at which the log took the launch (ms).

        The caller must then call `update_texts`.
        """
        self.set_text(row, semantic_E)
        if self.launch_sequence_V[row] == NOT_LAUNCHED:
            self.launched_ms_V[row], self.launch_sequence_V[row] = recorded, sequence
            if self.launch_order.is_full:
                self.launch_order = self.current_launch_order()
            else:
                self.launch_order.append(row, sequence, recorded)
        self.launched_V[row] = True
        self.year_V[row] = np.nan if year is None else year
        self.released_V[row] = UNKNOWN_DATE if released is None else released
        self.genres_VG[row] = genre_codes(genres)

    def set_text(self, row: int, semantic_E: NDArray[np.float32] | None) -> None:
        """Store a title's text embedding, or that it has none. The caller must then call `update_texts`."""
        new_E = np.zeros(self.semantic_VE.shape[1], np.float32) if semantic_E is None else semantic_E
        self.text_center.replace(self.semantic_VE[row], new_E, bool(self.text_neighbors.settled_V[row]))
        self.semantic_VE[row] = new_E
        self._changed_texts.append(row)

    def update_texts(self, rows: Sequence[int], settled_M: NDArray[np.int64]) -> None:
        """Update the text neighbors of launched rows, and let the rows `settled_M` be neighbors from now on.

        Call it once per batch: without cells it compares with all titles.
        """
        semantic_VE = self.semantic_VE[: len(self)]
        changed_M = np.array(sorted(set(self._changed_texts)), np.int64)
        self.text_cells.update(semantic_VE, changed_M)
        if len(settled_M):
            self.text_neighbors.settle(semantic_VE, settled_M, self.text_cells)
            self.text_center.settle(semantic_VE[settled_M])
        if rows:
            self.text_neighbors.update(semantic_VE, sorted(set(rows)), self.text_cells)
        self.text_center.update(semantic_VE, changed_M)
        self._changed_texts = []

    def restart_text(self, d_text: int) -> None:
        """Drop all text embeddings, and expect ones of another width or encoder from now on."""
        self.semantic_VE = np.zeros((self.capacity, d_text), np.float32)
        self.text_neighbors = TextNeighbors(self.capacity)
        self.text_center, self.text_cells = TextCenter(d_text, self.capacity), TitleCells()
        self._changed_texts = list(range(len(self)))

    def withdraw(self, row: int) -> None:
        """Remove the title from the candidates; its id and its events stay."""
        self.launch_sequence_V[row] = NOT_LAUNCHED

    def rows_to_evict(self, max_titles: int) -> NDArray[np.int64]:
        """Return the rows to evict so that at most `max_titles` remain, with some slack; empty below the limit.

        Launched titles are among them only if more than `max_titles` titles have launched.
        """
        used = len(self.rows)
        if used <= max_titles:
            return np.zeros(0, np.int64)
        live = np.array(sorted(self.rows.values()), np.int64)
        order = live[np.lexsort((self.last_used_V[live], self.launched_V[live]))]
        count, never_launched = used - max_titles + max_titles // EVICTION_SLACK, int((~self.launched_V[live]).sum())
        if used - never_launched <= max_titles:
            count = min(count, never_launched)
        return np.sort(order[:count])

    def evict(self, rows: NDArray[np.int64]) -> None:
        """Free the rows; the caller must clear its own arrays at these rows."""
        for row in rows.tolist():
            del self.rows[self.ids[row]]
            self.ids[row] = ""
            self.set_text(row, None)
        self.launch_sequence_V[rows], self.count_V[rows] = NOT_LAUNCHED, 0
        self.launched_V[rows], self.launched_ms_V[rows], self.stamp_V[rows] = False, 0, 0
        self.year_V[rows], self.released_V[rows], self.genres_VG[rows] = np.nan, UNKNOWN_DATE, NO_GENRE
        self.text_neighbors.remove(rows)
        self.free.extend(rows.tolist())

    def state_dict(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name)[: len(self)].copy() for name in _ARRAYS}
        return {
            "ids": list(self.ids),
            "free": list(self.free),
            "text_neighbors": self.text_neighbors.state_dict(len(self)),
            "text_center": self.text_center.state_dict(),
            "text_cells": self.text_cells.state_dict(len(self)),
            "changed_texts": list(self._changed_texts),
            **arrays,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ids, self.free = [shared_id(title) for title in state["ids"]], list(state["free"])
        self.rows = {title: row for row, title in enumerate(self.ids) if title}
        while self.capacity < len(self.ids):
            self._grow()
        for name in _ARRAYS:
            getattr(self, name)[: len(self.ids)] = state[name]
        self.text_neighbors.load_state_dict(state["text_neighbors"])
        self.text_center.load_state_dict(state["text_center"], self.semantic_VE[: len(self.ids)])
        self.text_cells.load_state_dict(state["text_cells"], self.semantic_VE[: len(self.ids)])
        self._changed_texts = list(state["changed_texts"])
        self.launch_order = self.current_launch_order()

    def current_launch_order(self) -> LaunchOrder:
        """The order of the launches of new titles, from the arrays."""
        titles = len(self)
        new_V = self.candidate_V & (self.count_V[:titles] < MIN_EVIDENCE)
        return LaunchOrder.of(self.launch_sequence_V[:titles], self.launched_ms_V[:titles], new_V)

    def _add_row(self, title: str) -> int:
        title = shared_id(title)  # histories hold the same objects, so that a lookup compares pointers
        if self.free:
            row = self.free.pop()
            self.ids[row] = title
        else:
            row = len(self.ids)
            if row == self.capacity:
                self._grow()
            self.ids.append(title)
        self.rows[title] = row
        self._changed_texts.append(row)
        return row

    def _grow(self) -> None:
        empty = Catalog(self.semantic_VE.shape[1], self.capacity)
        for name in _ARRAYS:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(empty, name)]))
        self.text_neighbors.grow(self.capacity)
        self.text_center.grow(self.capacity)


def genre_codes(genres: Sequence[str]) -> NDArray[np.int16]:
    """Hash the first GENRES_PER_TITLE genres to codes below GENRE_CODES, followed by NO_GENRE."""
    codes = []
    for genre in dict.fromkeys(genre.strip().lower() for genre in genres):
        digest = 2166136261  # FNV-1a, because Python's own hash differs between processes
        for byte in genre.encode():
            digest = ((digest ^ byte) * 16777619) & 0xFFFFFFFF
        codes.append((digest ^ digest >> 16) % GENRE_CODES)  # the low bits alone collide more often
    return np.array((codes + [NO_GENRE] * GENRES_PER_TITLE)[:GENRES_PER_TITLE], np.int16)
