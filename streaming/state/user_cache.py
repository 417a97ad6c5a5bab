"""The users that `publish` knows: their histories, their current lists, and which of them a new title may suit.

The cache can be rebuilt from the learner log. It is bounded: users with fewer than PROVEN_EVENTS events are evicted
before the others, the least recently active ones first. The query vectors of all users lie in one array, so that one
matrix product compares a new title with every user. A query vector can only be compared with title vectors of the model
version that computed it.

Shapes: U rows of the query array (one per user with lists), P dimensions of the output space, H horizons, T titles,
C candidates.
"""

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from model.actions import TARGET_WEIGHTS
from model.recommender import RankedLists, UserContext
from model.state.id_table import shared_id
from model.state.segmented_cache import PROVEN_EVENTS, SegmentedCache
from streaming.records import Activity

# (titles, their scores) -> indices of the titles of the list
SelectTitles = Callable[[Sequence[str], NDArray[np.float32]], NDArray[np.int64]]

NO_VERSION: Final = -1
USER_EVICTIONS: Final = Counter("premiere_publish_user_evictions_total", "Users evicted from the cache of publish.")
MIN_QUERY_ROWS: Final = 64  # initial rows of the query array; a full array grows to twice its size


@dataclass(slots=True, eq=False)
class CachedUser:
    """A user's history and current lists."""

    user: str | None  # None: stands for all unknown users
    titles: list[str] = field(default_factory=list)  # oldest first, as are times and actions
    times: "array[int]" = field(default_factory=lambda: array("q"))  # ms
    actions: "array[int]" = field(default_factory=lambda: array("b"))  # codes of ACTIONS
    seen: OrderedDict[str, None] = field(default_factory=OrderedDict)  # titles of positive events, least recent first
    events: int = 0  # all events so far, also those no longer in the history
    positives: int = 0  # events with a positive weight so far
    source: str = ""  # identity of the topic `user-events` with the newest event
    partition: int = 0  # newest event's partition in it
    offset: int = 0  # newest event's offset in it
    appended: int = 0  # newest event's append time, ms
    ranked: RankedLists | None = None  # current lists; None as soon as a newer version is served
    version: int = NO_VERSION  # the model version that ranked the lists

    def ranking_input(self, filter_seen: bool) -> UserContext:
        """The user as the recommender takes it."""
        seen = tuple(self.seen) if filter_seen else None
        return UserContext(self.user or "", self.titles, self.times, self.actions, seen, self.positives)


class UserCache:
    """At most `max_users` users, with at most `max_seen` seen titles each."""

    def __init__(self, max_users: int = 50_000, max_seen: int = 4096) -> None:
        self.max_users, self.max_seen = max_users, max_seen
        self.cached: SegmentedCache[CachedUser] = SegmentedCache(max_users)
        self.query_UP = np.zeros((0, 0), np.float32)
        self.version_U = np.full(0, NO_VERSION, np.int64)  # the version of each query vector
        self.user_indices: dict[str, int] = {}  # user -> row of query_UP
        self.users: list[str] = []  # row of query_UP -> user; "" for a free row
        self.free_indices: list[int] = []

    def __len__(self) -> int:
        return len(self.cached)

    def get(self, user: str) -> CachedUser | None:
        """The cached user, or None if the user is unknown."""
        return self.cached.get(user)

    def most_recent_first(self) -> Iterator[str]:
        """All users, the proven ones before the others, most recently active first."""
        return reversed(self.cached)

    def update(self, activity: Activity) -> bool:
        """Replace a user's history. Returns False for an old activity that was read again."""
        cached = self.cached.get(activity.user)
        newest = max(activity.new, key=lambda event: event.offset, default=None)
        partition, offset, appended = (newest.partition, newest.offset, newest.appended) if newest else (0, 0, 0)
        if cached is not None and cached.source == activity.source:
            # Offsets of different partitions cannot be compared; a user of a wrong partitioner has several.
            same = cached.partition == partition
            if (offset if same else cached.offset, activity.count) <= (cached.offset, cached.events):
                return False
        if cached is None:
            cached = self._add(activity.user)
            new: Iterable[int] = range(len(activity.titles))
            cached.positives = activity.count - len(activity.titles)  # counts earlier events as positive
        else:
            new = sorted(event.index for event in activity.new)
        cached.titles = [shared_id(title) for title in activity.titles]
        cached.times, cached.actions = array("q", activity.times), array("b", activity.actions)
        cached.events, cached.offset, cached.appended = activity.count, offset, max(cached.appended, appended)
        cached.source, cached.partition = activity.source, partition
        self._count_positives(cached, new)
        self.cached.put(activity.user, cached, cached.positives >= PROVEN_EVENTS)
        return True

    def erase(self, user: str) -> None:
        """Remove a user."""
        self._remove(user)

    def store_lists(self, cached: CachedUser, ranked: RankedLists, version: int) -> None:
        """Store a user's current lists and query vector."""
        cached.ranked, cached.version = ranked, version
        if cached.user is not None and cached.user in self.cached:
            user_index = self._reserve_index(cached.user, len(ranked.query))
            self.query_UP[user_index], self.version_U[user_index] = ranked.query, version

    def drop_lists(self) -> None:
        """Drop all lists, because their scores cannot be compared with a new version's; they take the most memory."""
        for cached in self.cached.values():
            cached.ranked = None

    def nearest(self, title_vectors: Mapping[int, NDArray[np.float32]], limit: int) -> list[str]:
        """The `limit` users whose query vectors fit a title best; `title_vectors` are [P], by version."""
        score_U = np.full(len(self.version_U), -np.inf, np.float32)
        for version, title_P in title_vectors.items():
            of_version_U = self.version_U == version
            if of_version_U.any():  # multiply all rows: selecting those of the version would cost more
                np.copyto(score_U, self.query_UP @ title_P, where=of_version_U)
        best = np.argpartition(-score_U, limit)[:limit] if len(score_U) > limit else np.arange(len(score_U))
        best = best[score_U[best] > -np.inf]
        return [self.users[user_index] for user_index in best[np.argsort(-score_U[best], kind="stable")]]

    def query_versions(self) -> set[int]:
        """The versions whose query vectors are cached."""
        return set(np.unique(self.version_U).tolist()) - {NO_VERSION}

    def _count_positives(self, cached: CachedUser, new: Iterable[int]) -> None:
        for i in new:
            if TARGET_WEIGHTS[cached.actions[i]] > 0:
                cached.positives += 1
                cached.seen.pop(cached.titles[i], None)
                cached.seen[cached.titles[i]] = None
        while len(cached.seen) > self.max_seen:
            cached.seen.popitem(last=False)

    def _add(self, user: str) -> CachedUser:
        if len(self.cached) >= self.max_users:
            self._remove(next(iter(self.cached)))
            USER_EVICTIONS.inc()
        cached = CachedUser(user)
        self.cached.put(user, cached, is_proven=False)
        return cached

    def _remove(self, user: str) -> None:
        self.cached.pop(user)
        if (user_index := self.user_indices.pop(user, None)) is not None:
            self.version_U[user_index], self.query_UP[user_index], self.users[user_index] = NO_VERSION, 0, ""
            self.free_indices.append(user_index)

    def _reserve_index(self, user: str, width: int) -> int:
        """The user's row of the query array; a free or a new one for a user without lists."""
        if (user_index := self.user_indices.get(user)) is not None:
            return user_index
        if self.free_indices:
            user_index = self.free_indices.pop()
            self.users[user_index] = user
        else:
            user_index = len(self.users)
            self.users.append(user)
            if user_index == len(self.version_U):
                more = max(MIN_QUERY_ROWS, user_index)
                self.query_UP = np.concatenate(
                    [self.query_UP.reshape(user_index, width), np.zeros((more, width), np.float32)]
                )
                self.version_U = np.concatenate([self.version_U, np.full(more, NO_VERSION, np.int64)])
        self.user_indices[user] = user_index
        return user_index


def insert_titles(
    ranked: RankedLists, titles: Sequence[str], score_HT: NDArray[np.float32], select: SelectTitles
) -> RankedLists:
    """Insert new titles into a user's lists by their scores; a title that is in a list already moves."""
    lists, scores = dict(ranked.titles), dict(ranked.scores)
    inserted = set(titles)
    for h, horizon in enumerate(ranked.titles):
        old = [i for i, title in enumerate(lists[horizon]) if title not in inserted]
        names = [*(lists[horizon][i] for i in old), *titles]
        score_C = np.concatenate([scores[horizon][old], score_HT[h]])
        best = select(names, score_C)
        lists[horizon], scores[horizon] = [names[i] for i in best.tolist()], score_C[best]
    return replace(ranked, titles=lists, scores=scores)
