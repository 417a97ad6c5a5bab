"""The three simple recommenders that the model must beat: counters, ranked before each event and updated after it.

- `popularity`: events of a title so far.
- `popularity_recent`: events in the last `days`, ties broken by all-time popularity: win + 1e-6 pop.
- `cooccurrence`: how often a title directly followed the user's last one: c + 1e-3 win + 1e-6 pop.

They rank among launched titles, less those the user has seen (unless `repeats`), average rank on ties; an event and its
counts become visible only after it was ranked. The live learner runs them beside itself, so their memory is bounded:
beyond the limits the users and pairs unused for longest are forgotten. One rank costs a few passes over the catalogue.
"""

import math
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.metrics.ranking import average_rank

NAMES: Final = ("popularity", "popularity_recent", "cooccurrence")
_DAY_MS: Final = 86_400_000


class _Viewer:
    """What is kept of one user: the last title, the events so far, the distinct titles seen (in order)."""

    __slots__ = ("events", "last", "order", "seen")

    def __init__(self, last: int = -1, events: int = 0, order: "array[int] | None" = None) -> None:
        self.last, self.events = last, events
        self.order = array("i") if order is None else order  # the same rows as `seen`: numpy reads it without a copy
        self.seen = set(self.order)


class Baselines:
    """All three at once: `launch` titles, then for each event `rank` it and `count` it. Times in ms."""

    def __init__(
        self,
        *,
        days: float = 30,
        repeats: bool = False,
        max_titles: int = 1_000_000,
        max_seen: int = 20_000_000,
        max_pairs: int = 5_000_000,
        max_lately: int = 5_000_000,
    ) -> None:
        self.window, self.repeats = round(days * _DAY_MS), repeats
        self.max_titles, self.max_seen, self.max_pairs, self.max_lately = max_titles, max_seen, max_pairs, max_lately
        self._row: dict[str, int] = {}
        self._ids: list[str] = []
        self._launched = np.zeros(1024, bool)  # by row; grown by doubling, as the two below
        self._pop = np.zeros(1024)
        self._win = np.zeros(1024)
        self._lately: deque[tuple[int, int]] = deque()  # (ts, row) of the events in the window
        self._viewers: dict[str, _Viewer] = {}  # least recently active first
        self._follows: dict[int, dict[int, int]] = {}  # row -> {next row: times}, least recently followed first
        self._seen = self._pairs = 0  # entries in all viewers' sets, in all follow tables

    def launch(self, title: str) -> None:
        """From now on `title` is a candidate."""
        if (row := self._add(title)) >= 0:
            self._launched[row] = True

    def withdraw(self, title: str) -> None:
        """`title` is no candidate any more; its counts stay."""
        if (row := self._row.get(title, -1)) >= 0:
            self._launched[row] = False

    def title_events(self, title: str) -> int:
        """Events of `title` counted so far."""
        row = self._row.get(title, -1)
        return int(self._pop[row]) if row >= 0 else 0

    def user_events(self, user: str) -> int:
        """Events of `user` counted so far."""
        viewer = self._viewers.get(user)
        return viewer.events if viewer else 0

    def has_seen(self, user: str, title: str) -> bool:
        """Whether the seen filter takes `title` from `user`: such an event is counted but not scored."""
        viewer = self._viewers.get(user)
        return not self.repeats and viewer is not None and self._row.get(title, -1) in viewer.seen

    def rank(self, user: str, title: str, ts: int) -> dict[str, float]:
        """The rank of `title` for `user` at `ts`, by baseline; infinity where it is no candidate. Changes nothing."""
        target = self._row.get(title, -1)
        if target < 0 or not self._launched[target] or self.has_seen(user, title):
            return dict.fromkeys(NAMES, math.inf)
        return {name: average_rank(score_V, target) for name, score_V in self._scores(user, ts)}

    def best(self, user: str, ts: int, most: int) -> dict[str, list[str]]:
        """The `most` best titles for `user` at `ts`, by baseline, best first; of equals the one known longer."""
        return {name: [self._ids[row] for row in _best(score_V, most)] for name, score_V in self._scores(user, ts)}

    def count(self, user: str, title: str, ts: int) -> None:
        """Learn from one event, after it was ranked. Not for actions of weight 0: they are context, no targets."""
        row = self._add(title)
        if row < 0:
            return
        for _, gone in self._expired(ts):
            self._win[gone] -= 1
            self._lately.popleft()
        if len(self._lately) >= self.max_lately:  # a busy month, or an event dated far ahead that blocks the others
            self._win[self._lately.popleft()[1]] -= 1
        self._pop[row] += 1
        self._win[row] += 1
        self._lately.append((ts, row))
        viewer = self._viewers.pop(user) if user in self._viewers else _Viewer()
        self._viewers[user] = viewer  # at the end: most recently active
        self._follow_up(viewer.last, row)
        viewer.last, viewer.events = row, viewer.events + 1
        if row not in viewer.seen:
            viewer.seen.add(row)
            viewer.order.append(row)
            self._seen += 1
        self._forget(user)

    def erase_user(self, user: str) -> None:
        """Drop what is kept of a user; what was counted stays counted."""
        if (viewer := self._viewers.pop(user, None)) is not None:
            self._seen -= len(viewer.seen)

    def _scores(self, user: str, ts: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Scores of all titles by baseline; -inf where no candidate."""
        viewer = self._viewers.get(user)
        size, win_V = len(self._row), self._win_at(ts)
        pop_V, open_V = self._pop[:size], self._launched[:size]
        if not self.repeats and viewer is not None and viewer.order:
            open_V = open_V.copy()
            open_V[np.frombuffer(viewer.order, np.int32)] = False
        follow_V = self._follow(viewer.last if viewer else -1, size)
        score_V = (pop_V, win_V + pop_V * 1e-6, follow_V + win_V * 1e-3 + pop_V * 1e-6)
        masked_V = (np.where(open_V, score, -math.inf) for score in score_V)
        return zip(NAMES, masked_V, strict=True)

    def _add(self, title: str) -> int:
        row = self._row.get(title)
        if row is not None:
            return row
        if (row := len(self._row)) >= self.max_titles:
            return -1
        self._row[title] = row
        self._ids.append(title)
        if row == len(self._pop):
            self._launched, self._pop, self._win = (
                np.concatenate([old, np.zeros_like(old)]) for old in (self._launched, self._pop, self._win)
            )
        return row

    def _expired(self, ts: int) -> list[tuple[int, int]]:
        gone = []
        for entry in self._lately:
            if entry[0] >= ts - self.window:
                break
            gone.append(entry)
        return gone

    def _win_at(self, ts: int) -> NDArray[np.float64]:
        win_V = self._win[: len(self._row)]
        gone = self._expired(ts)
        if gone:
            win_V = win_V.copy()
            np.subtract.at(win_V, [row for _, row in gone], 1)
        return win_V

    def _follow(self, last: int, size: int) -> NDArray[np.float64]:
        follow_V = np.zeros(size)
        following = self._follows.get(last)
        if following:
            follow_V[list(following)] = list(following.values())
        return follow_V

    def _follow_up(self, last: int, row: int) -> None:
        if last < 0:
            return
        following = self._follows.pop(last) if last in self._follows else {}
        self._follows[last] = following  # at the end: most recently followed
        self._pairs += row not in following
        following[row] = following.get(row, 0) + 1

    def _forget(self, user: str) -> None:
        """Drop what was unused for longest beyond the limits, but never the user at hand."""
        while self._seen > self.max_seen and (oldest := next(iter(self._viewers))) != user:
            self._seen -= len(self._viewers.pop(oldest).seen)
        while self._pairs > self.max_pairs and len(self._follows) > 1:
            self._pairs -= len(self._follows.pop(next(iter(self._follows))))

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides later ranks, as lists of strings and flat integer arrays."""
        size, viewers = len(self._row), self._viewers.values()
        return {
            "titles": list(self._row),
            "launched": self._launched[:size].copy(),
            "pop": self._pop[:size].astype(np.int64),
            "win": self._win[:size].astype(np.int64),
            "lately": _flat(self._lately, 2),
            "users": list(self._viewers),
            "viewers": _flat(((v.last, v.events, len(v.order)) for v in viewers), 3),
            "seen": np.concatenate([np.zeros(0, np.int32), *(np.array(v.order, np.int32) for v in viewers)]),
            "follows": _flat(((a, b, n) for a, row in self._follows.items() for b, n in row.items()), 3),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, bit for bit; the settings are those of the constructor."""
        size = len(state["titles"])
        room = max(1024, size)
        self._ids = list(state["titles"])
        self._row = {title: row for row, title in enumerate(self._ids)}
        self._launched, self._pop, self._win = np.zeros(room, bool), np.zeros(room), np.zeros(room)
        self._launched[:size], self._pop[:size], self._win[:size] = state["launched"], state["pop"], state["win"]
        self._lately = deque((ts, row) for ts, row in np.asarray(state["lately"]).tolist())
        self._viewers, start = {}, 0
        for user, (last, events, n) in zip(state["users"], np.asarray(state["viewers"]).tolist(), strict=True):
            seen = np.asarray(state["seen"])[start : start + n].tolist()
            self._viewers[user], start = _Viewer(last, events, array("i", seen)), start + n
        self._follows = {}
        for a, b, n in np.asarray(state["follows"]).tolist():
            self._follows.setdefault(a, {})[b] = n
        self._seen, self._pairs = start, len(state["follows"])


def _best(score_V: NDArray[np.float64], most: int) -> list[int]:
    """Places of the `most` highest scores, highest first, the earlier of equals first; never a -inf."""
    if not most or not len(score_V):
        return []
    least = np.partition(score_V, max(len(score_V) - most, 0))[max(len(score_V) - most, 0)]
    rows = np.flatnonzero((score_V >= least) & (score_V > -math.inf))
    best: list[int] = rows[np.argsort(-score_V[rows], kind="stable")][:most].tolist()
    return best


def _flat(rows: Iterator[tuple[int, ...]] | deque[tuple[int, int]], width: int) -> NDArray[np.int64]:
    return np.fromiter((value for row in rows for value in row), np.int64).reshape(-1, width)
