"""Everything a learner knows without gradients: catalogue, counters and audience, grown and bounded together.

The ranker reads it and the backbone trains beside it, so several models can be compared over one memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.actions import LIKING
from model.signals.table import POPULAR_WEEK, Query, Scratch, TitleSignals, scratch
from model.state import counters as counting
from model.state.catalog import NEVER, Catalog
from model.state.user_store import UserStore

_LIKING = np.array(LIKING, np.float32)


@dataclass(frozen=True)
class MemorySettings:
    """d_text: width of semantic vectors · the bounds of titles, users, and seen titles a user · history: events
    read."""

    d_text: int = 256
    most_titles: int = 200_000
    most_users: int = 200_000
    most_seen: int = 4096
    history: int = 100


class TitleMetadata(NamedTuple):
    """A title as the log tells it; `semantic` has no entries where there is no text."""

    title: str
    semantic: NDArray[np.float32]
    genres: Sequence[str]
    year: int | None
    released: int | None  # ms, from metadata only
    withdrawn: bool


@dataclass(frozen=True)
class History:
    """A user's history as catalogue rows, oldest first: rows_L int64, times_L int64 ms, actions_L codes."""

    user: str
    rows_L: NDArray[np.int64]
    times_L: NDArray[np.int64]
    actions_L: NDArray[np.int64]

    def before(self, index: int) -> "History":
        """The history up to, not with, entry `index`."""
        return History(self.user, self.rows_L[:index], self.times_L[:index], self.actions_L[:index])


class StreamState:
    """`sequence` numbers the log's records, `events` counts the events learned."""

    def __init__(self, settings: MemorySettings) -> None:
        self.settings = settings
        self.catalog = Catalog(settings.d_text)
        self.counters = counting.empty_counters(self.catalog.capacity)
        self.user_store = UserStore(1024, self.catalog.capacity, settings.most_users, settings.most_seen)
        self.sequence, self.events = 0, 0
        self._scratch = scratch(0, 0)

    def row(self, title: str) -> int:
        """The title's row; the arrays of every part grow with the catalogue."""
        row = self.catalog.row(title, self.sequence)
        if self.catalog.capacity > len(self.counters.popular_VC):
            self.counters = counting.grown(self.counters, self.catalog.capacity)
            self.user_store.grow_titles(self.catalog.capacity)
        return row

    def launch(self, titles: Iterable[TitleMetadata]) -> None:
        """Take in titles of the log, each one record of it."""
        rows = []
        for title in titles:
            self.sequence += 1
            row = self.row(title.title)
            if title.withdrawn:
                self.catalog.withdraw(row)
                continue
            semantic = title.semantic if len(title.semantic) else None
            self.catalog.launch(row, semantic, title.genres, title.year, title.released, self.sequence)
            rows.append(row)
        self.catalog.update_text_neighbors(rows)

    def make_room(self) -> NDArray[np.int64]:
        """Evict the least recently seen titles beyond the bound; their rows, for others to clear theirs."""
        rows = self.catalog.least_recent(self.settings.most_titles)
        if len(rows):
            self.catalog.evict(rows)
            counting.evict_titles(self.counters, rows)
            self.user_store.evict_titles(rows)
        return rows

    def titles(self) -> TitleSignals:
        """What signals read, as of the counters' clocks now. Popularity and counts are copies; pairs and the trail show
        through."""
        c, a, n = self.catalog, self.user_store, len(self.catalog)
        count_V = c.count_V[:n]
        log_V1 = np.log1p(count_V)[:, None]
        static = counting.popularity(self.counters, n), log_V1, count_V[:, None] == (0, 1)
        habits = counting.quiet(self.counters, n)[:, None], counting.liked(self.counters, count_V)[:, None]
        static_VS = np.concatenate([*static, *habits], 1, dtype=np.float32)
        near_VK, share_VK = (
            c.text_neighbors.to_VK[:n],
            c.text_neighbors.cosine_VK[:n] ** 3,
        )  # none where there is no neighbour
        share_VK /= share_VK.sum(1, keepdims=True) + np.float32(0.3)
        return TitleSignals(
            candidate_V=c.born_V[:n] < NEVER,
            year_V=c.year_V[:n],
            released_V=c.released_V[:n],
            genres_VG=c.genres_VG[:n],
            static_VS=static_VS,
            stage_BV=np.ascontiguousarray(np.log1p(self.counters.stage_VB[:n]).T),
            inv_sqrt_count_V=(1 / np.sqrt(count_V + 1)).astype(np.float32),
            idf_V=(1 / (1 + log_V1[:, 0])).astype(np.float32),
            near_VK=near_VK,
            share_VK=share_VK,
            near_popular_V=np.einsum("vk,vk->v", share_VK, static_VS[:, POPULAR_WEEK][near_VK]),
            has_text_V=np.asarray(c.semantic_VS[:n].any(axis=1)),
            interactions=a.interactions,
        )

    def scratch(self) -> Scratch:
        """Room for questions over the present titles and users; one, used again and again."""
        titles, users = len(self.catalog), len(self.user_store.interactions.user_count_U)
        if len(self._scratch.sums_VM) != titles or len(self._scratch.overlap_U) != users:
            self._scratch = scratch(titles, users)
        return self._scratch

    def query(self, history: History, now: int, delay: int = 0) -> Query:
        """The question what `history.user` takes next; unknown titles of the history (-1) are left out."""
        known = history.rows_L >= 0
        newest = slice(None, -self.settings.history - 1, -1)
        rows, times = history.rows_L[known][newest], history.times_L[known][newest]
        liking = _LIKING[history.actions_L[known][newest]]
        user_index, events = self.user_store.user_index(history.user), self.user_store.count(history.user)
        return Query(
            np.ascontiguousarray(rows.astype(np.int32)),
            np.ascontiguousarray(times),
            liking,
            int(now),
            user_index,
            max(events - delay, 0),
            delay,
        )

    def count(self, history: History, row: int, ts: int, action: int = 0) -> None:
        """Count one event of `history.user` on `row` after the history `history`."""
        self.events += 1
        counting.tick(self.counters, ts, self.events)
        recent_L = np.ascontiguousarray(history.rows_L[: -counting.TOGETHER - 1 : -1].astype(np.int32))
        kind = counting.EventKind(float(_LIKING[action]), self.user_store.count(history.user))
        counting.count_event(self.counters, counting.gain(self.counters), row, recent_L, kind)
        self.catalog.count_V[row] += 1
        self.user_store.add(history.user, row)

    def state_dict(self) -> dict[str, Any]:
        n = len(self.catalog)
        return {
            "catalogue": self.catalog.state_dict(),
            "counters": counting.counters_state(self.counters, n),
            "audience": self.user_store.state_dict(n),
            "sequence": self.sequence,
            "events": self.events,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.catalog.load_state_dict(state["catalogue"])
        self.counters = counting.empty_counters(self.catalog.capacity)
        counting.load_counters(self.counters, state["counters"])
        self.user_store.grow_titles(self.catalog.capacity)
        self.user_store.load_state_dict(state["audience"])
        self.sequence, self.events = state["sequence"], state["events"]
