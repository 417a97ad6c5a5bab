"""Everything a learner knows without gradients: catalogue, counters and audience, grown and bounded together.

The ranker reads it and the backbone trains beside it, so several models can be compared over one memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.actions import LIKING
from model.signals.table import POPULAR_WEEK, Asked, Scratch, Titles, scratch
from model.state import counters as counting
from model.state.catalog import NEVER, Catalogue
from model.state.user_store import Audience

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


class Launched(NamedTuple):
    """A title as the log tells it; `semantic` has no entries where there is no text."""

    title: str
    semantic: NDArray[np.float32]
    genres: Sequence[str]
    year: int | None
    released: int | None  # ms, from metadata only
    withdrawn: bool


@dataclass(frozen=True)
class Past:
    """A user's history as catalogue rows, oldest first: rows_L int64, times_L int64 ms, actions_L codes."""

    user: str
    rows_L: NDArray[np.int64]
    times_L: NDArray[np.int64]
    actions_L: NDArray[np.int64]

    def before(self, index: int) -> "Past":
        """The history up to, not with, entry `index`."""
        return Past(self.user, self.rows_L[:index], self.times_L[:index], self.actions_L[:index])


class Memory:
    """`sequence` numbers the log's records, `events` counts the events learned."""

    def __init__(self, settings: MemorySettings) -> None:
        self.settings = settings
        self.catalogue = Catalogue(settings.d_text)
        self.counters = counting.empty_counters(self.catalogue.capacity)
        self.audience = Audience(1024, self.catalogue.capacity, settings.most_users, settings.most_seen)
        self.sequence, self.events = 0, 0
        self._scratch = scratch(0, 0)

    def row(self, title: str) -> int:
        """The title's row; the arrays of every part grow with the catalogue."""
        row = self.catalogue.row(title, self.sequence)
        if self.catalogue.capacity > len(self.counters.popular_VC):
            self.counters = counting.grown(self.counters, self.catalogue.capacity)
            self.audience.grow_titles(self.catalogue.capacity)
        return row

    def launch(self, titles: Iterable[Launched]) -> None:
        """Take in titles of the log, each one record of it."""
        rows = []
        for title in titles:
            self.sequence += 1
            row = self.row(title.title)
            if title.withdrawn:
                self.catalogue.withdraw(row)
                continue
            semantic = title.semantic if len(title.semantic) else None
            self.catalogue.launch(row, semantic, title.genres, title.year, title.released, self.sequence)
            rows.append(row)
        self.catalogue.find_similar(rows)

    def make_room(self) -> NDArray[np.int64]:
        """Evict the least recently seen titles beyond the bound; their rows, for others to clear theirs."""
        rows = self.catalogue.least_recent(self.settings.most_titles)
        if len(rows):
            self.catalogue.evict(rows)
            counting.forget_titles(self.counters, rows)
            self.audience.forget_titles(rows)
        return rows

    def titles(self) -> Titles:
        """What signals read, as of the counters' clocks now. Popularity and counts are copies; pairs and the trail show
        through."""
        c, a, n = self.catalogue, self.audience, len(self.catalogue)
        count_V = c.count_V[:n]
        log_V1 = np.log1p(count_V)[:, None]
        static = counting.popularity(self.counters, n), log_V1, count_V[:, None] == (0, 1)
        habits = counting.quiet(self.counters, n)[:, None], counting.liked(self.counters, count_V)[:, None]
        static_VS = np.concatenate([*static, *habits], 1, dtype=np.float32)
        near_VK, share_VK = c.similar.to_VK[:n], c.similar.cosine_VK[:n] ** 3  # none where there is no neighbour
        share_VK /= share_VK.sum(1, keepdims=True) + np.float32(0.3)
        return Titles(
            candidate_V=c.born_V[:n] < NEVER,
            year_V=c.year_V[:n],
            released_V=c.released_V[:n],
            genres_VG=c.genres_VG[:n],
            static_VS=static_VS,
            stage_BV=np.ascontiguousarray(np.log1p(self.counters.stage_VB[:n]).T),
            rare_V=(1 / np.sqrt(count_V + 1)).astype(np.float32),
            said_V=(1 / (1 + log_V1[:, 0])).astype(np.float32),
            near_VK=near_VK,
            share_VK=share_VK,
            near_popular_V=np.einsum("vk,vk->v", share_VK, static_VS[:, POPULAR_WEEK][near_VK]),
            has_text_V=np.asarray(c.semantic_VS[:n].any(axis=1)),
            trail=a.trail,
        )

    def scratch(self) -> Scratch:
        """Room for questions over the present titles and users; one, used again and again."""
        titles, users = len(self.catalogue), len(self.audience.trail.many_U)
        if len(self._scratch.sums_VM) != titles or len(self._scratch.overlap_U) != users:
            self._scratch = scratch(titles, users)
        return self._scratch

    def asked(self, past: Past, now: int, delay: int = 0) -> Asked:
        """The question what `past.user` takes next; unknown titles of the history (-1) are left out."""
        known = past.rows_L >= 0
        newest = slice(None, -self.settings.history - 1, -1)
        rows, times = past.rows_L[known][newest], past.times_L[known][newest]
        liking = _LIKING[past.actions_L[known][newest]]
        slot, events = self.audience.slot(past.user), self.audience.count(past.user)
        return Asked(
            np.ascontiguousarray(rows.astype(np.int32)),
            np.ascontiguousarray(times),
            liking,
            int(now),
            slot,
            max(events - delay, 0),
            delay,
        )

    def count(self, past: Past, row: int, ts: int, action: int = 0) -> None:
        """Count one event of `past.user` on `row` after the history `past`."""
        self.events += 1
        counting.tick(self.counters, ts, self.events)
        recent_L = np.ascontiguousarray(past.rows_L[: -counting.TOGETHER - 1 : -1].astype(np.int32))
        kind = counting.Kind(float(_LIKING[action]), self.audience.count(past.user))
        counting.count_event(self.counters, counting.gain(self.counters), row, recent_L, kind)
        self.catalogue.count_V[row] += 1
        self.audience.add(past.user, row)

    def state_dict(self) -> dict[str, Any]:
        n = len(self.catalogue)
        return {
            "catalogue": self.catalogue.state_dict(),
            "counters": counting.counters_state(self.counters, n),
            "audience": self.audience.state_dict(n),
            "sequence": self.sequence,
            "events": self.events,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.catalogue.load_state_dict(state["catalogue"])
        self.counters = counting.empty_counters(self.catalogue.capacity)
        counting.load_counters(self.counters, state["counters"])
        self.audience.grow_titles(self.catalogue.capacity)
        self.audience.load_state_dict(state["audience"])
        self.sequence, self.events = state["sequence"], state["events"]
