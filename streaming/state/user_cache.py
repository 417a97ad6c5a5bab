"""The viewers that `publish` knows: what they did, what they were last served, and whom a new title may suit.

A cache that can be rebuilt from the log, bounded by letting the longest inactive go. Query vectors lie in one array, so
that a new title is compared with all viewers by one product; each belongs to the version that made it.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import intern
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.actions import WEIGHTS
from model.recommender import RankedEvent, Viewer, choose
from streaming.records import Activity

NONE: Final = -1  # no version


@dataclass(slots=True, eq=False)
class CachedUser:
    """offset: newest in `user-events` · appended: its append time (ms) · events: all so far, targets: those that count
    as one · ranked: the last lists, made by `version`; None once a newer version is served."""

    user: str | None  # None: stands for viewers whom nobody has seen
    titles: list[str] = field(default_factory=list)
    times: "array[int]" = field(default_factory=lambda: array("q"))
    actions: "array[int]" = field(default_factory=lambda: array("b"))
    seen: dict[str, None] = field(default_factory=dict)  # oldest first
    events: int = 0
    targets: int = 0
    offset: int = 0
    appended: int = 0
    ranked: RankedEvent | None = None
    version: int = NONE

    def viewer(self, filter_seen: bool) -> Viewer:
        """As the recommender takes it."""
        seen = tuple(self.seen) if filter_seen else None
        return Viewer(self.user or "", self.titles, self.times, self.actions, seen, self.targets)


class UserCache:
    """At most `most` viewers, at most `most_seen` seen titles each."""

    def __init__(self, most: int = 50_000, most_seen: int = 4096) -> None:
        self.most, self.most_seen = most, most_seen
        self.known: OrderedDict[str, CachedUser] = OrderedDict()  # the longest inactive first
        self.query_UP = np.zeros((0, 0), np.float32)
        self.version_U = np.full(0, NONE, np.int64)
        self.user_indices: dict[str, int] = {}
        self.users: list[str] = []  # by slot
        self.free: list[int] = []

    def __len__(self) -> int:
        return len(self.known)

    def get(self, user: str) -> CachedUser | None:
        """The viewer, if known."""
        return self.known.get(user)

    def recent_first(self) -> Iterator[str]:
        """All users, the last to act first."""
        return reversed(self.known)

    def act(self, activity: Activity) -> bool:
        """Take in what a user did. False where it is an older activity that came again."""
        known = self.known.get(activity.user)
        newest = max(activity.new, key=lambda event: event.offset, default=None)
        offset, appended = (newest.offset, newest.appended) if newest else (0, 0)
        if known is not None and (offset, activity.count) <= (known.offset, known.events):
            return False
        if known is None:
            known = self._enter(activity.user)
            fresh: Iterable[int] = range(len(activity.titles))
            known.targets = activity.count - len(activity.titles)  # what came before is taken for targets
        else:
            fresh = sorted(event.index for event in activity.new)
        known.titles = [intern(title) for title in activity.titles]
        known.times, known.actions = array("q", activity.times), array("b", activity.actions)
        known.events, known.offset, known.appended = activity.count, offset, max(known.appended, appended)
        self._see(known, fresh)
        self.known.move_to_end(activity.user)
        return True

    def forget(self, user: str, offset: int) -> bool:
        """Drop a viewer. False where the viewer has acted after the request at `offset`: it came again."""
        known = self.known.get(user)
        if known is not None and known.offset > offset:
            return False
        self._leave(user)
        return True

    def keep(self, known: CachedUser, ranked: RankedEvent, version: int) -> None:
        """Remember what a viewer is served now."""
        known.ranked, known.version = ranked, version
        if known.user is not None and known.user in self.known:
            user_index = self._slot(known.user, len(ranked.query))
            self.query_UP[user_index], self.version_U[user_index] = ranked.query, version

    def outdate(self) -> None:
        """A new version is served: lists do not compare with its scores, and are most of what a viewer takes."""
        for known in self.known.values():
            known.ranked = None

    def nearest(self, embedded: Mapping[int, NDArray[np.float32]], most: int) -> list[str]:
        """The users, `most` at most, whom a title fits best; `embedded` is the title under each version."""
        score_U = np.full(len(self.version_U), -np.inf, np.float32)
        for version, e_P in embedded.items():
            mine_U = self.version_U == version
            if mine_U.any():  # all rows are multiplied: to pick a version's would cost more
                np.copyto(score_U, self.query_UP @ e_P, where=mine_U)
        best = np.argpartition(-score_U, most)[:most] if len(score_U) > most else np.arange(len(score_U))
        best = best[score_U[best] > -np.inf]
        return [self.users[user_index] for user_index in best[np.argsort(-score_U[best], kind="stable")]]

    def versions(self) -> set[int]:
        """The versions whose query vectors are cached."""
        return set(np.unique(self.version_U).tolist()) - {NONE}

    def _see(self, known: CachedUser, fresh: Iterable[int]) -> None:
        for i in fresh:
            if WEIGHTS[known.actions[i]] > 0:
                known.targets += 1
                known.seen.pop(known.titles[i], None)
                known.seen[known.titles[i]] = None
        while len(known.seen) > self.most_seen:
            del known.seen[next(iter(known.seen))]

    def _enter(self, user: str) -> CachedUser:
        if len(self.known) >= self.most:
            self._leave(next(iter(self.known)))
        known = self.known[user] = CachedUser(user)
        return known

    def _leave(self, user: str) -> None:
        self.known.pop(user, None)
        if (user_index := self.user_indices.pop(user, None)) is not None:
            self.version_U[user_index], self.query_UP[user_index], self.users[user_index] = NONE, 0, ""
            self.free.append(user_index)

    def _slot(self, user: str, width: int) -> int:
        if (user_index := self.user_indices.get(user)) is not None:
            return user_index
        if self.free:
            user_index = self.free.pop()
            self.users[user_index] = user
        else:
            user_index = len(self.users)
            self.users.append(user)
            if user_index == len(self.version_U):
                room = max(64, user_index)
                self.query_UP = np.concatenate(
                    [self.query_UP.reshape(user_index, width), np.zeros((room, width), np.float32)]
                )
                self.version_U = np.concatenate([self.version_U, np.full(room, NONE, np.int64)])
        self.user_indices[user] = user_index
        return user_index


def insert(
    ranked: RankedEvent, titles: Sequence[str], score_HT: NDArray[np.float32], size: int, kept: int = 0
) -> RankedEvent:
    """The lists with fresh `titles` where their scores put them; one that lay in a list already moves."""
    lists, scores, fresh = dict(ranked.titles), dict(ranked.scores), ranked.fresh | set(titles)
    new = set(titles)
    for place, horizon in enumerate(ranked.titles):
        old = [i for i, title in enumerate(lists[horizon]) if title not in new]
        names = [*(lists[horizon][i] for i in old), *titles]
        score_C = np.concatenate([scores[horizon][old], score_HT[place]])
        fresh_C = np.array([title in fresh for title in names], bool)
        best = choose(score_C, fresh_C, size, kept)
        lists[horizon], scores[horizon] = [names[i] for i in best.tolist()], score_C[best]
    return replace(ranked, titles=lists, scores=scores, fresh=fresh)
