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

from model.state import interactions as trails

NOBODY: Final = -1
FEWEST: Final = 8  # places of a new user


class Audience:
    """Slots by user; the trail has what each has seen."""

    def __init__(self, users: int = 1024, titles: int = 1024, most_users: int = 200_000, most_seen: int = 4096) -> None:
        self.most_users, self.most_seen = most_users, most_seen
        self.slots: dict[str, int] = {}  # in order of last use: the first is the next to go
        self.made = 0  # slots so far
        self.free: list[int] = []  # slots of forgotten users, in order
        self.spare: dict[int, list[int]] = {}  # places of the arena that were left, by their number
        self.used = 0  # places of the arena so far
        self.trail = trails.empty_trail(4096, users, titles)

    def slot(self, user: str) -> int:
        """The user's slot or NOBODY; changes nothing."""
        return self.slots.get(user, NOBODY)

    def count(self, user: str) -> int:
        """Events of this user so far."""
        slot = self.slot(user)
        return 0 if slot == NOBODY else int(self.trail.many_U[slot])

    def seen_by(self, user: str) -> NDArray[np.int32]:
        """Title rows the user has seen, oldest first, at most `most_seen`."""
        slot = self.slot(user)
        if slot == NOBODY:
            return np.zeros(0, np.int32)
        start, room, n = (int(one[slot]) for one in (self.trail.start_U, self.trail.room_U, self.trail.many_U))
        seen = self.trail.row_E[start : start + min(n, room)]
        return seen if n <= room else np.roll(seen, -(n % room))

    def make_room(self, events: Mapping[str, int]) -> None:
        """Room for so many more events of each user: views that are taken now hold until they have come."""
        while len(self.trail.many_U) < self.made + len(events):
            self._grow_users()
        places = 0
        for user, more in events.items():
            n = min(self.count(user), self.most_seen)
            # A ring that doubles leaves in all as much behind; who is evicted meanwhile begins anew.
            places += 4 * (n + more) + 4 * more + 4 * FEWEST
        self._grow_places(places)

    def add(self, user: str, row: int) -> None:
        """The user acted on the title."""
        slot = self._use(user)
        many, room = int(self.trail.many_U[slot]), int(self.trail.room_U[slot])
        if many == room < self.most_seen:
            self._widen(slot, min(2 * room, self.most_seen) if room else min(FEWEST, self.most_seen))
        trails.add_event(self.trail, slot, row)

    def forget_titles(self, rows: NDArray[np.int64]) -> None:
        """Clear evicted title rows: a row that another title takes over must not look seen."""
        trails.forget_rows(self.trail, rows)

    def forget_user(self, user: str) -> None:
        """Drop everything of one user."""
        slot = self.slots.pop(user, None)
        if slot is not None:
            self._clear(slot)
            insort(self.free, slot)

    def grow_titles(self, titles: int) -> None:
        self.trail = trails.grown(self.trail, titles=titles - len(self.trail.taken_V))

    def state_dict(self, titles: int) -> dict[str, Any]:
        return {
            "users": list(self.slots),
            "slots": np.array(list(self.slots.values()), np.int64),
            "trail": trails.trail_state(self.trail, self.made, titles),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Into an audience that is new."""
        many_U = state["trail"]["many_U"]
        self.slots = dict(zip(state["users"], state["slots"].tolist(), strict=True))
        self.made = len(many_U)
        self.free = sorted(set(range(self.made)) - set(self.slots.values()))
        while len(self.trail.many_U) < self.made:
            self._grow_users()
        rooms = np.minimum(2 ** np.ceil(np.log2(np.maximum(many_U, FEWEST))), self.most_seen).astype(np.int64)
        rooms[many_U == 0] = 0
        self._grow_places(int(rooms.sum()))
        self.trail.room_U[: self.made], self.trail.start_U[: self.made] = rooms, rooms.cumsum() - rooms
        self.used = int(rooms.sum())
        trails.load_trail(self.trail, state["trail"])

    def _use(self, user: str) -> int:
        slot = self.slots.pop(user, None)
        if slot is None and self.free:
            slot = self.free.pop(0)
        elif slot is None and len(self.slots) < self.most_users:
            slot = self.made
            if slot == len(self.trail.many_U):
                self._grow_users()
            self.made += 1
        elif slot is None:
            slot = self.slots.pop(next(iter(self.slots)))
            self._clear(slot)
        self.slots[user] = slot
        return slot

    def _clear(self, slot: int) -> None:
        trails.forget_slot(self.trail, slot)
        self._spare(slot)
        self.trail.room_U[slot] = 0

    def _widen(self, slot: int, room: int) -> None:
        """A larger ring for the user; the old one's places are for the next who need so many."""
        if spare := self.spare.get(room):
            start = spare.pop()
        else:
            self._grow_places(room)
            start = self.used
            self.used += room
        self._spare(slot)
        trails.widen(self.trail, slot, start, room)

    def _spare(self, slot: int) -> None:
        if room := int(self.trail.room_U[slot]):
            self.spare.setdefault(room, []).append(int(self.trail.start_U[slot]))

    def _grow_places(self, more: int) -> None:
        room = len(self.trail.row_E)
        if self.used + more > room:
            self.trail = trails.grown(self.trail, places=max(room, self.used + more - room))

    def _grow_users(self) -> None:
        self.trail = trails.grown(self.trail, users=len(self.trail.many_U))
