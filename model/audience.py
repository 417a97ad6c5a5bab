"""The users a learner remembers: what each has seen, how much they did, and the trail of what all did lately.

The seen set decides what may be ranked (learner, server and evaluation filter by the same one) and is longer than the
history a model reads. The trail answers "who acts alike, and what did they take around it" without any user-by-user
matrix. All bounded: users by least recent use, titles a user, events of the trail.

A user who leaves, evicted or forgotten, leaves the trail too: the slot's next holder must not vote for what the last
one did.
"""

from bisect import insort
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model import trail as trails

NOBODY: Final = -1


class Audience:
    """seen: row lists by user · many_U events so far · trail: the newest events of all."""

    def __init__(
        self,
        users: int = 1024,
        titles: int = 1024,
        most_users: int = 200_000,
        most_seen: int = 4096,
        most_events: int = 4_000_000,
    ) -> None:
        self.most_users, self.most_seen, self.most_events = most_users, most_seen, most_events
        self.slots: dict[str, int] = {}  # in order of last use: the first is the next to go
        self.seen: list[NDArray[np.int32]] = []
        self.free: list[int] = []  # slots of forgotten users, in order
        self.many_U = np.zeros(users, np.int64)
        self.trail = trails.empty_trail(min(4096, most_events), users, titles)

    def slot(self, user: str) -> int:
        """The user's slot or NOBODY; changes nothing."""
        return self.slots.get(user, NOBODY)

    def count(self, user: str) -> int:
        """Events of this user so far."""
        slot = self.slot(user)
        return 0 if slot == NOBODY else int(self.many_U[slot])

    def seen_by(self, user: str) -> NDArray[np.int32]:
        """Title rows the user has seen, oldest first, at most `most_seen`."""
        slot = self.slot(user)
        if slot == NOBODY:
            return np.zeros(0, np.int32)
        n, seen = int(self.many_U[slot]), self.seen[slot]
        return seen[:n] if n <= self.most_seen else np.roll(seen[: self.most_seen], -(n % self.most_seen))

    def make_room(self, users: int, events: int) -> None:
        """Room for so many more: views that are taken now hold until they have come."""
        while len(self.many_U) < len(self.seen) + users:
            self._grow_users()
        while (room := len(self.trail.link_E5)) < min(self.most_events, self.trail.written_1[0] + events):
            self.trail = trails.grown(self.trail, events=min(room, self.most_events - room))

    def add(self, user: str, row: int) -> None:
        """The user acted on the title."""
        self.make_room(0, 1)  # a ring that is written over can grow no more
        slot = self._use(user)
        n, seen = int(self.many_U[slot]), self.seen[slot]
        if n == len(seen) and n < self.most_seen:
            seen = self.seen[slot] = np.concatenate([seen, np.full(min(len(seen), self.most_seen - n), -1, np.int32)])
        seen[n % self.most_seen] = row
        self.many_U[slot] += 1
        trails.add_event(self.trail, slot, row)

    def forget_titles(self, rows: NDArray[np.int64]) -> None:
        """Clear evicted title rows: a row that another title takes over must not look seen."""
        for row in rows.tolist():
            trails.forget_row(self.trail, row)
        for slot in self.slots.values():
            self.seen[slot][np.isin(self.seen[slot], rows)] = NOBODY

    def forget_user(self, user: str) -> None:
        """Drop everything of one user."""
        slot = self.slots.pop(user, None)
        if slot is not None:
            self._clear(slot)
            insort(self.free, slot)

    def grow_titles(self, titles: int) -> None:
        self.trail = trails.grown(self.trail, titles=titles - len(self.trail.last_V))

    def state_dict(self, titles: int) -> dict[str, Any]:
        users = len(self.seen)
        lengths = np.minimum(self.many_U[:users], self.most_seen)
        held = [seen[:n] for seen, n in zip(self.seen, lengths.tolist(), strict=True)]
        return {
            "users": list(self.slots),
            "slots": np.array(list(self.slots.values()), np.int64),
            "seen": np.concatenate(held) if held else np.zeros(0, np.int32),
            "many_U": self.many_U[:users].copy(),
            "trail": trails.trail_state(self.trail, users, titles),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        users = len(state["many_U"])
        self.slots = dict(zip(state["users"], state["slots"].tolist(), strict=True))
        self.free = sorted(set(range(users)) - set(self.slots.values()))
        while len(self.many_U) < users:
            self._grow_users()
        self.many_U[:users] = state["many_U"]
        self.make_room(0, int(state["trail"]["written_1"][0]) - int(self.trail.written_1[0]))
        for name, saved in state["trail"].items():
            getattr(self.trail, name)[: len(saved)] = saved
        ends = np.cumsum(np.minimum(state["many_U"], self.most_seen))
        self.seen = [_room(part) for part in np.split(state["seen"], ends[:-1])] if users else []

    def _use(self, user: str) -> int:
        slot = self.slots.pop(user, None)
        if slot is None and self.free:
            slot = self.free.pop(0)
        elif slot is None and len(self.slots) < self.most_users:
            slot = len(self.seen)
            if slot == len(self.many_U):
                self._grow_users()
            self.seen.append(np.full(8, -1, np.int32))
        elif slot is None:
            slot = self.slots.pop(next(iter(self.slots)))
            self._clear(slot)
        self.slots[user] = slot
        return slot

    def _clear(self, slot: int) -> None:
        trails.forget_slot(self.trail, slot)
        self.seen[slot] = np.full(8, -1, np.int32)
        self.many_U[slot] = 0

    def _grow_users(self) -> None:
        self.many_U = np.concatenate([self.many_U, np.zeros_like(self.many_U)])
        self.trail = trails.grown(self.trail, users=len(self.trail.last_U))


def _room(seen: NDArray[np.int32]) -> NDArray[np.int32]:
    """The same entries with room for the next: never an empty array."""
    return np.concatenate([seen, np.full(max(8, len(seen)) - len(seen), -1, np.int32)])
