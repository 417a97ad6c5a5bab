"""The users a learner remembers: what each has seen, how much they did, and with whom they share titles.

The seen set decides what may be ranked (learner, server and evaluation filter by the same one) and is longer than the
history a model reads. The trail, which keeps it, answers "who acts alike, and what did they take around it" without any
user-by-user matrix. All bounded: users by least recent use, titles a user, takers a title.

A user who leaves, evicted or forgotten, leaves the trail too: the slot's next holder must not vote for what the last
one did.
"""

from bisect import insort
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.state import interactions as interactions

NOBODY: Final = -1
FEWEST: Final = 8  # places of a new user


class UserStore:
    """Slots by user; the trail has what each has seen."""

    def __init__(self, users: int = 1024, titles: int = 1024, most_users: int = 200_000, most_seen: int = 4096) -> None:
        self.most_users, self.most_seen = most_users, most_seen
        self.user_indices: dict[str, int] = {}  # in order of last use: the first is the next to go
        self.made = 0  # slots so far
        self.free: list[int] = []  # slots of forgotten users, in order
        self.spare: dict[int, list[int]] = {}  # places of the arena that were left, by their number
        self.used = 0  # places of the arena so far
        self.interactions = interactions.empty_index(4096, users, titles)

    def user_index(self, user: str) -> int:
        """The user's slot or NOBODY; changes nothing."""
        return self.user_indices.get(user, NOBODY)

    def count(self, user: str) -> int:
        """Events of this user so far."""
        user_index = self.user_index(user)
        return 0 if user_index == NOBODY else int(self.interactions.user_count_U[user_index])

    def seen_by(self, user: str) -> NDArray[np.int32]:
        """Title rows the user has seen, oldest first, at most `most_seen`."""
        user_index = self.user_index(user)
        if user_index == NOBODY:
            return np.zeros(0, np.int32)
        start, room, n = (
            int(one[user_index])
            for one in (self.interactions.start_U, self.interactions.user_capacity_U, self.interactions.user_count_U)
        )
        seen = self.interactions.row_E[start : start + min(n, room)]
        return seen if n <= room else np.roll(seen, -(n % room))

    def make_room(self, events: Mapping[str, int]) -> None:
        """Room for so many more events of each user: views that are taken now hold until they have come."""
        while len(self.interactions.user_count_U) < self.made + len(events):
            self._grow_users()
        places = 0
        for user, more in events.items():
            n = min(self.count(user), self.most_seen)
            # A ring that doubles leaves in all as much behind; who is evicted meanwhile begins anew.
            places += 4 * (n + more) + 4 * more + 4 * FEWEST
        self._grow_places(places)

    def add(self, user: str, row: int) -> None:
        """The user acted on the title."""
        user_index = self._use(user)
        many, room = int(self.interactions.user_count_U[user_index]), int(self.interactions.user_capacity_U[user_index])
        if many == room < self.most_seen:
            self._widen(user_index, min(2 * room, self.most_seen) if room else min(FEWEST, self.most_seen))
        interactions.add_event(self.interactions, user_index, row)

    def evict_titles(self, rows: NDArray[np.int64]) -> None:
        """Clear evicted title rows: a row that another title takes over must not look seen."""
        interactions.evict_rows(self.interactions, rows)

    def erase_user(self, user: str) -> None:
        """Drop everything of one user."""
        user_index = self.user_indices.pop(user, None)
        if user_index is not None:
            self._clear(user_index)
            insort(self.free, user_index)

    def grow_titles(self, titles: int) -> None:
        self.interactions = interactions.grown(self.interactions, titles=titles - len(self.interactions.title_count_V))

    def state_dict(self, titles: int) -> dict[str, Any]:
        return {
            "users": list(self.user_indices),
            "slots": np.array(list(self.user_indices.values()), np.int64),
            "trail": interactions.index_state(self.interactions, self.made, titles),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Into an audience that is new."""
        user_count_U = state["trail"]["many_U"]
        self.user_indices = dict(zip(state["users"], state["slots"].tolist(), strict=True))
        self.made = len(user_count_U)
        self.free = sorted(set(range(self.made)) - set(self.user_indices.values()))
        while len(self.interactions.user_count_U) < self.made:
            self._grow_users()
        rooms = np.minimum(2 ** np.ceil(np.log2(np.maximum(user_count_U, FEWEST))), self.most_seen).astype(np.int64)
        rooms[user_count_U == 0] = 0
        self._grow_places(int(rooms.sum()))
        self.interactions.user_capacity_U[: self.made], self.interactions.start_U[: self.made] = (
            rooms,
            rooms.cumsum() - rooms,
        )
        self.used = int(rooms.sum())
        interactions.load_index(self.interactions, state["trail"])

    def _use(self, user: str) -> int:
        user_index = self.user_indices.pop(user, None)
        if user_index is None and self.free:
            user_index = self.free.pop(0)
        elif user_index is None and len(self.user_indices) < self.most_users:
            user_index = self.made
            if user_index == len(self.interactions.user_count_U):
                self._grow_users()
            self.made += 1
        elif user_index is None:
            user_index = self.user_indices.pop(next(iter(self.user_indices)))
            self._clear(user_index)
        self.user_indices[user] = user_index
        return user_index

    def _clear(self, user_index: int) -> None:
        interactions.remove_user(self.interactions, user_index)
        self._spare(user_index)
        self.interactions.user_capacity_U[user_index] = 0

    def _widen(self, user_index: int, room: int) -> None:
        """A larger ring for the user; the old one's places are for the next who need so many."""
        if spare := self.spare.get(room):
            start = spare.pop()
        else:
            self._grow_places(room)
            start = self.used
            self.used += room
        self._spare(user_index)
        interactions.widen(self.interactions, user_index, start, room)

    def _spare(self, user_index: int) -> None:
        if room := int(self.interactions.user_capacity_U[user_index]):
            self.spare.setdefault(room, []).append(int(self.interactions.start_U[user_index]))

    def _grow_places(self, more: int) -> None:
        room = len(self.interactions.row_E)
        if self.used + more > room:
            self.interactions = interactions.grown(self.interactions, places=max(room, self.used + more - room))

    def _grow_users(self) -> None:
        self.interactions = interactions.grown(self.interactions, users=len(self.interactions.user_count_U))
