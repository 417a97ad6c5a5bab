"""The user store keeps the users that the learner knows, their number of events and the titles that each has seen.

Learner, server and evaluation filter candidates by the same seen titles. They reach further back than the history that
a model reads. The store is bounded: a user who came a few times only is evicted before one with PROVEN_EVENTS events,
and the least recently active one first. An interaction index bounds the titles of a user and the users of a title.

When a user is evicted or erased, the user's events leave the interaction index, because the next user with the same
index must not inherit them.
"""

from bisect import insort
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.state.interactions import (
    add_event,
    empty_index,
    evict_rows,
    index_state,
    load_index,
    move_user,
    remove_user,
    resized,
)
from model.state.segmented_cache import PROVEN_EVENTS, SegmentedCache

UNKNOWN_USER: Final = -1  # index of a user that is not in the store
MIN_USER_CAPACITY: Final = 8  # events in a new user's ring buffer
INITIAL_POSITIONS: Final = 4096  # size of an empty store's arena


class UserStore:
    """Assigns an index to each user and keeps the interaction index of all users."""

    def __init__(self, users: int = 1024, titles: int = 1024, max_users: int = 200_000, max_seen: int = 4096) -> None:
        self.max_users, self.max_seen = max_users, max_seen
        self.user_indices: SegmentedCache[int] = SegmentedCache(max_users)
        self.allocated = 0  # user indices assigned so far
        self.free_indices: list[int] = []  # indices of erased users, sorted
        self.free_blocks: dict[int, list[int]] = {}  # starts of unused arena blocks by their size
        self.arena_used = 0  # arena positions allocated so far
        self.interactions = empty_index(INITIAL_POSITIONS, users, titles)

    def user_index(self, user: str) -> int:
        """Return the user's index or UNKNOWN_USER; the store does not change."""
        user_index = self.user_indices.get(user)
        return UNKNOWN_USER if user_index is None else user_index

    def event_count(self, user: str) -> int:
        """Return the number of the user's events so far."""
        user_index = self.user_index(user)
        return 0 if user_index == UNKNOWN_USER else int(self.interactions.user_count_U[user_index])

    def seen_by(self, user: str) -> NDArray[np.int32]:
        """Return the rows of the user's titles, oldest first, at most `max_seen`."""
        user_index = self.user_index(user)
        if user_index == UNKNOWN_USER:
            return np.zeros(0, np.int32)
        start, capacity, n = (
            int(array_U[user_index])
            for array_U in (
                self.interactions.start_U,
                self.interactions.user_capacity_U,
                self.interactions.user_count_U,
            )
        )
        seen = self.interactions.row_X[start : start + min(n, capacity)]
        return seen if n <= capacity else np.roll(seen, -(n % capacity))

    def reserve(self, events: Mapping[str, int]) -> None:
        """Allocate capacity for this many more events by user, so that the arrays are not replaced meanwhile."""
        while len(self.interactions.user_count_U) < self.allocated + len(events):
            self._grow_users()
        positions = 0
        for user, more in events.items():
            n = min(self.event_count(user), self.max_seen)
            # Doubling a ring buffer leaves as much unused in total; an evicted user starts again with an empty one.
            positions += 4 * (n + more) + 4 * more + 4 * MIN_USER_CAPACITY
        self._grow_arena(positions)

    def add(self, user: str, row: int) -> None:
        """Add an event of the user on the title at `row`."""
        user_index = self._touch(user)
        count = int(self.interactions.user_count_U[user_index])
        capacity = int(self.interactions.user_capacity_U[user_index])
        if count == capacity < self.max_seen:
            self._enlarge(user_index, min(2 * capacity if capacity else MIN_USER_CAPACITY, self.max_seen))
        add_event(self.interactions, user_index, row)

    def evict_titles(self, rows: NDArray[np.int64]) -> None:
        """Remove evicted titles: the next title in the row must not appear as seen."""
        evict_rows(self.interactions, rows)

    def erase_user(self, user: str) -> None:
        """Remove all data of one user."""
        user_index = self.user_indices.pop(user)
        if user_index is not None:
            self._clear(user_index)
            insort(self.free_indices, user_index)

    def grow_titles(self, titles: int) -> None:
        """Extend the arrays to `titles` rows."""
        self.interactions = resized(self.interactions, titles=titles - len(self.interactions.title_count_V))

    def state_dict(self, titles: int) -> dict[str, Any]:
        return {
            "users": list(self.user_indices),
            "user_indices": np.array(list(self.user_indices.values()), np.int64),
            "users_on_probation": len(self.user_indices.probation),
            "interactions": index_state(self.interactions, self.allocated, titles),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state into a store that is still empty."""
        user_count_U = state["interactions"]["user_count_U"]
        users = zip(state["users"], state["user_indices"].tolist(), strict=True)
        for n, (user, user_index) in enumerate(users):
            self.user_indices.put(user, user_index, is_proven=n >= state["users_on_probation"])
        self.allocated = len(user_count_U)
        self.free_indices = sorted(set(range(self.allocated)) - set(self.user_indices.values()))
        while len(self.interactions.user_count_U) < self.allocated:
            self._grow_users()
        capacity_U = 2 ** np.ceil(np.log2(np.maximum(user_count_U, MIN_USER_CAPACITY)))
        capacity_U = np.minimum(capacity_U, self.max_seen).astype(np.int64)
        capacity_U[user_count_U == 0] = 0
        self._grow_arena(int(capacity_U.sum()))
        self.interactions.user_capacity_U[: self.allocated] = capacity_U
        self.interactions.start_U[: self.allocated] = capacity_U.cumsum() - capacity_U
        self.arena_used = int(capacity_U.sum())
        load_index(self.interactions, state["interactions"])
        while len(self.user_indices) > self.max_users:
            _, user_index = self.user_indices.pop_oldest()
            self._clear(user_index)
            insort(self.free_indices, user_index)

    def _touch(self, user: str) -> int:
        """Mark the user as most recently active and return the index, assigned if necessary."""
        user_index = self.user_indices.pop(user)
        if user_index is None and len(self.user_indices) >= self.max_users:
            _, user_index = self.user_indices.pop_oldest()
            self._clear(user_index)
        elif user_index is None and self.free_indices:
            user_index = self.free_indices.pop(0)
        elif user_index is None:
            user_index = self.allocated
            if user_index == len(self.interactions.user_count_U):
                self._grow_users()
            self.allocated += 1
        events = int(self.interactions.user_count_U[user_index]) + 1
        self.user_indices.put(user, user_index, is_proven=events >= PROVEN_EVENTS)
        return user_index

    def _clear(self, user_index: int) -> None:
        remove_user(self.interactions, user_index)
        self._free_block(user_index)
        self.interactions.user_capacity_U[user_index] = 0

    def _enlarge(self, user_index: int, capacity: int) -> None:
        """Move the user's events to a larger block; the old block is reused for a ring buffer of its size."""
        if starts := self.free_blocks.get(capacity):
            start = starts.pop()
        else:
            self._grow_arena(capacity)
            start = self.arena_used
            self.arena_used += capacity
        self._free_block(user_index)
        move_user(self.interactions, user_index, start, capacity)

    def _free_block(self, user_index: int) -> None:
        if capacity := int(self.interactions.user_capacity_U[user_index]):
            self.free_blocks.setdefault(capacity, []).append(int(self.interactions.start_U[user_index]))

    def _grow_arena(self, more: int) -> None:
        size = len(self.interactions.row_X)
        if self.arena_used + more > size:
            self.interactions = resized(self.interactions, positions=max(size, self.arena_used + more - size))

    def _grow_users(self) -> None:
        self.interactions = resized(self.interactions, users=len(self.interactions.user_count_U))
