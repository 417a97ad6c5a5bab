"""The baselines: popularity, recent popularity in several windows, and co-occurrence, evaluated prequentially.

- `popularity`: the title's events so far.
- `popularity_1h`, `_1d`, `_7d`, `_30d`: its events in the last hour, day, 7 days or 30 days, ties broken by popularity:
  recent + 1e-6 popularity. The best window depends on the stream. MRR by window, shortest first: 0.243, 0.240, 0.240,
  0.240 on the first 20,000 clicks of globo, and 0.055, 0.067, 0.079, 0.062 on tests/data.
- `cooccurrence`: how often the title directly followed the user's last title: follows + 1e-3 recent + 1e-6 popularity,
  where recent is of 30 days. Other windows change its MRR by -4 % to +8 % on these streams and on ml-small-2016.

They rank the launched titles that the user has not seen (all launched titles with `repeats`). Ties get the average
rank. An event is counted only after it was ranked. The live learner runs the baselines beside the model, so their
memory is bounded. Beyond the limits, the least recently used users are evicted, all pairs of the least recently updated
title, and the titles with the fewest events, withdrawn ones first. One rank costs a few passes over the catalog.

V titles
"""

import math
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.metrics.ranking import average_rank
from model.metrics.recent_counts import RecentCounts

_HOUR_MS: Final = 3_600_000
RECENT_WINDOWS: Final = {  # ms
    "popularity_1h": _HOUR_MS,
    "popularity_1d": 24 * _HOUR_MS,
    "popularity_7d": 7 * 24 * _HOUR_MS,
    "popularity_30d": 30 * 24 * _HOUR_MS,
}
BASELINES: Final = ("popularity", *RECENT_WINDOWS, "cooccurrence")
EVICTION_SLACK: Final = 50  # an eviction frees 1/50 of the titles, because it rebuilds the state
POPULARITY_TIE_WEIGHT: Final = 1e-6  # of an event so far: breaks ties, unless a title has a million events
RECENT_TIE_WEIGHT: Final = 1e-3  # of a recent event in the co-occurrence baseline: breaks ties of small counts
INITIAL_TITLES: Final = 1024  # rows that are allocated at the start; their number grows by doubling


class _User:
    """The state of one user: the last title, the number of events, the distinct titles seen in order."""

    __slots__ = ("events", "last", "seen", "seen_order")

    def __init__(self, last: int = -1, events: int = 0, seen_order: "array[int] | None" = None) -> None:
        self.last, self.events = last, events
        # The same rows as `seen`, in an array that numpy reads without a copy.
        self.seen_order = array("i") if seen_order is None else seen_order
        self.seen = set(self.seen_order)


class Baselines:
    """All baselines: `launch` titles, then for each event first `rank`, then `count`. Times in ms."""

    def __init__(
        self,
        *,
        repeats: bool = False,
        max_titles: int = 1_000_000,
        max_seen: int = 20_000_000,
        max_pairs: int = 5_000_000,
        max_window_events: int = 5_000_000,
    ) -> None:
        self.repeats, self.max_titles, self.max_seen, self.max_pairs = repeats, max_titles, max_seen, max_pairs
        self._row: dict[str, int] = {}
        self._ids: list[str] = []
        self._launched, self._popularity = np.zeros(0, bool), np.zeros(0)  # by row
        self._recent = RecentCounts(tuple(RECENT_WINDOWS.values()), max_window_events)
        self._reserve(INITIAL_TITLES)
        # Both drop their first entry at the bounds. A plain dict would search it from the front, past all deleted ones.
        self._users: OrderedDict[str, _User] = OrderedDict()  # least recently active first
        self._follows: OrderedDict[int, dict[int, int]] = OrderedDict()  # row -> {next row: count}, as users
        self._seen_total = self._pairs = 0  # entries in all users' seen sets, in all follow tables

    def launch(self, title: str) -> None:
        """Make `title` a candidate."""
        row = self._add(title)  # may replace the arrays
        self._launched[row] = True

    def withdraw(self, title: str) -> None:
        """Remove `title` from the candidates; its counts stay."""
        if (row := self._row.get(title, -1)) >= 0:
            self._launched[row] = False

    def title_events(self, title: str) -> int:
        """Events of `title` counted so far."""
        row = self._row.get(title, -1)
        return int(self._popularity[row]) if row >= 0 else 0

    def user_events(self, user: str) -> int:
        """Events of `user` counted so far."""
        state = self._users.get(user)
        return state.events if state else 0

    def has_seen(self, user: str, title: str) -> bool:
        """Whether the seen filter removes `title` for `user`: such an event is counted but not scored."""
        state = self._users.get(user)
        return not self.repeats and state is not None and self._row.get(title, -1) in state.seen

    def rank(self, user: str, title: str, ts: int) -> dict[str, float]:
        """The rank of `title` for `user` at `ts` by baseline; infinity if it is not a candidate. Changes no state."""
        target = self._row.get(title, -1)
        if target < 0 or not self._launched[target] or self.has_seen(user, title):
            return dict.fromkeys(BASELINES, math.inf)
        return {name: average_rank(score_V, target) for name, score_V in self._scores(user, ts)}

    def top_titles(self, user: str, ts: int, limit: int) -> dict[str, list[str]]:
        """The `limit` best titles for `user` at `ts` by baseline, best first; ties: the title known longer first."""
        return {name: [self._ids[row] for row in _top_rows(score_V, limit)] for name, score_V in self._scores(user, ts)}

    def count(self, user: str, title: str, ts: int) -> None:
        """Count one event after it was ranked. Actions of weight 0 are context only and must not be counted."""
        row = self._add(title)
        self._popularity[row] += 1
        self._recent.count(row, ts)
        state = self._users[user] = self._users.get(user) or _User()
        self._users.move_to_end(user)
        self._count_follow(state.last, row)
        state.last, state.events = row, state.events + 1
        if row not in state.seen:
            state.seen.add(row)
            state.seen_order.append(row)
            self._seen_total += 1
        self._evict(user)

    def erase_user(self, user: str) -> None:
        """Drop a user's state; the counts of titles keep the user's events."""
        if (state := self._users.pop(user, None)) is not None:
            self._seen_total -= len(state.seen)

    def _scores(self, user: str, ts: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Scores of all titles by baseline; -inf for titles that are not candidates."""
        state = self._users.get(user)
        size = len(self._row)
        recent_WV = self._recent.at(ts, size)
        popularity_V, candidate_V = self._popularity[:size], self._launched[:size]
        if not self.repeats and state is not None and state.seen_order:
            candidate_V = candidate_V.copy()
            candidate_V[np.frombuffer(state.seen_order, np.int32)] = False
        follow_V = self._follow_counts(state.last if state else -1, size)
        tie_break_V = popularity_V * POPULARITY_TIE_WEIGHT
        recent = (recent_V + tie_break_V for recent_V in recent_WV)
        scores = popularity_V, *recent, follow_V + recent_WV[-1] * RECENT_TIE_WEIGHT + tie_break_V
        masked = (np.where(candidate_V, score_V, -math.inf) for score_V in scores)
        return zip(BASELINES, masked, strict=True)

    def _add(self, title: str) -> int:
        row = self._row.get(title)
        if row is not None:
            return row
        if len(self._row) >= self.max_titles:
            self._evict_titles()
        row = len(self._row)
        self._row[title] = row
        self._ids.append(title)
        if row == len(self._popularity):
            self._reserve(2 * row)
        return row

    def _reserve(self, titles: int) -> None:
        """Make room for this number of title rows."""
        missing = titles - len(self._popularity)
        self._launched, self._popularity = (np.pad(old, (0, missing)) for old in (self._launched, self._popularity))
        self._recent.reserve(titles)

    def _evict_titles(self) -> None:
        """Evict the titles with the fewest events, withdrawn ones first; their rows close up."""
        size = len(self._row)
        order = np.lexsort((self._popularity[:size], self._launched[:size]))
        kept_V = np.ones(size, bool)
        kept_V[order[: max(1, self.max_titles // EVICTION_SLACK)]] = False
        rows: list[int] = np.where(kept_V, kept_V.cumsum() - 1, -1).tolist()  # by former row, -1 for evicted titles
        self._ids = [title for title, kept in zip(self._ids, kept_V.tolist(), strict=True) if kept]
        self._row = {title: row for row, title in enumerate(self._ids)}
        for values_V in (self._launched, self._popularity):
            values_V[: len(self._ids)] = values_V[:size][kept_V]
            values_V[len(self._ids) :] = 0
        self._recent.keep_rows(rows)
        for user, state in self._users.items():
            seen = array("i", (rows[row] for row in state.seen_order if rows[row] >= 0))
            self._users[user] = _User(rows[state.last] if state.last >= 0 else -1, state.events, seen)
        self._follows = OrderedDict(
            (rows[a], {rows[b]: n for b, n in follows.items() if rows[b] >= 0})
            for a, follows in self._follows.items()
            if rows[a] >= 0
        )
        self._seen_total = sum(len(state.seen) for state in self._users.values())
        self._pairs = sum(map(len, self._follows.values()))

    def _follow_counts(self, last: int, size: int) -> NDArray[np.float64]:
        follow_V = np.zeros(size)
        following = self._follows.get(last)
        if following:
            follow_V[list(following)] = list(following.values())
        return follow_V

    def _count_follow(self, last: int, row: int) -> None:
        if last < 0:
            return
        following = self._follows.setdefault(last, {})
        self._follows.move_to_end(last)
        self._pairs += row not in following
        following[row] = following.get(row, 0) + 1

    def _evict(self, user: str) -> None:
        """Evict the least recently used users and pairs beyond the limits, but never the given user."""
        while self._seen_total > self.max_seen and next(iter(self._users)) != user:
            self._seen_total -= len(self._users.popitem(last=False)[1].seen)
        while self._pairs > self.max_pairs and len(self._follows) > 1:
            self._pairs -= len(self._follows.popitem(last=False)[1])

    def state_dict(self) -> dict[str, Any]:
        """Everything that later ranks depend on, as lists of strings and flat integer arrays."""
        size, users = len(self._row), self._users.values()
        return {
            "titles": list(self._row),
            "launched": self._launched[:size].copy(),
            "popularity": self._popularity[:size].astype(np.int64),
            "recent": self._recent.state_dict(),
            "users": list(self._users),
            "user_counts": _flat(((u.last, u.events, len(u.seen_order)) for u in users), 3),
            "seen": np.concatenate([np.zeros(0, np.int32), *(np.array(u.seen_order, np.int32) for u in users)]),
            "follows": _flat(((a, b, n) for a, row in self._follows.items() for b, n in row.items()), 3),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned, bit for bit; the settings come from the constructor."""
        size = len(state["titles"])
        self._ids = list(state["titles"])
        self._row = {title: row for row, title in enumerate(self._ids)}
        self._launched, self._popularity = np.zeros(0, bool), np.zeros(0)
        self._reserve(max(INITIAL_TITLES, size))
        self._launched[:size], self._popularity[:size] = state["launched"], state["popularity"]
        self._recent.load_state_dict(state["recent"])
        self._users, start = OrderedDict(), 0
        for user, (last, events, n) in zip(state["users"], np.asarray(state["user_counts"]).tolist(), strict=True):
            seen = np.asarray(state["seen"])[start : start + n].tolist()
            self._users[user], start = _User(last, events, array("i", seen)), start + n
        self._follows = OrderedDict()
        for a, b, n in np.asarray(state["follows"]).tolist():
            self._follows.setdefault(a, {})[b] = n
        self._seen_total, self._pairs = start, len(state["follows"])


def _top_rows(score_V: NDArray[np.float64], limit: int) -> list[int]:
    """Rows of the `limit` highest scores, highest first, ties by row; rows that score -inf are left out."""
    if not limit or not len(score_V):
        return []
    threshold = np.partition(score_V, max(len(score_V) - limit, 0))[max(len(score_V) - limit, 0)]
    rows = np.flatnonzero((score_V >= threshold) & (score_V > -math.inf))
    top: list[int] = rows[np.argsort(-score_V[rows], kind="stable")][:limit].tolist()
    return top


def _flat(rows: Iterator[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    return np.fromiter((value for row in rows for value in row), np.int64).reshape(-1, width)
