"""The users a learner remembers: what each has seen, their recent titles, and who acted on a title lately.

The seen set decides what may be ranked (learner, server and evaluation filter by the same one) and is longer than the
history a model reads. Recent titles and recent actors answer "who acts alike" (session k-nearest-neighbours, Jannach
and Ludewig 2017) without any user-by-user matrix. All bounded: users by least recent use, titles a user and actors a
title by rings.

A user who leaves, evicted or forgotten, leaves the rings too: the slot's next holder must not vote for what the last
one did. The entries behind move up, since readers of a ring stop at its first gap.
"""

from bisect import insort
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RECENT: Final = 128  # titles a user is compared by
ACTORS: Final = 64  # users a title remembers
NOBODY: Final = -1


class Audience:
    """seen: row lists by user · recent_UR int32 rings of title rows · many_U events so far · actors_VA int32 rings of
    user slots · acted_V events that went through a title's ring."""

    def __init__(self, users: int = 1024, titles: int = 1024, most_users: int = 200_000, most_seen: int = 4096) -> None:
        self.most_users, self.most_seen = most_users, most_seen
        self.slots: dict[str, int] = {}  # in order of last use: the first is the next to go
        self.seen: list[NDArray[np.int32]] = []
        self.free: list[int] = []  # slots of forgotten users, in order
        self.many_U = np.zeros(users, np.int64)
        self.recent_UR = np.full((users, RECENT), NOBODY, np.int32)
        self.actors_VA = np.full((titles, ACTORS), NOBODY, np.int32)
        self.acted_V = np.zeros(titles, np.int64)

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

    def make_room(self, users: int) -> None:
        """Room for so many more users: views that are taken now hold until they have come."""
        while len(self.many_U) < len(self.seen) + users:
            self._grow_users()

    def add(self, user: str, row: int) -> None:
        """The user acted on the title."""
        slot = self._use(user)
        n, seen = int(self.many_U[slot]), self.seen[slot]
        if n == len(seen) and n < self.most_seen:
            seen = self.seen[slot] = np.concatenate([seen, np.full(min(len(seen), self.most_seen - n), -1, np.int32)])
        seen[n % self.most_seen] = row
        self.recent_UR[slot, n % RECENT] = row
        self.many_U[slot] += 1
        self.actors_VA[row, self.acted_V[row] % ACTORS] = slot
        self.acted_V[row] += 1

    def forget_titles(self, rows: NDArray[np.int64]) -> None:
        """Clear evicted title rows: a row that another title takes over must not look seen."""
        self.actors_VA[rows], self.acted_V[rows] = NOBODY, 0
        self.recent_UR[np.isin(self.recent_UR, rows)] = NOBODY
        for slot in self.slots.values():
            self.seen[slot][np.isin(self.seen[slot], rows)] = NOBODY

    def forget_user(self, user: str) -> None:
        """Drop everything of one user."""
        slot = self.slots.pop(user, None)
        if slot is not None:
            self._clear(slot)
            insort(self.free, slot)

    def grow_titles(self, titles: int) -> None:
        extra = titles - len(self.acted_V)
        self.actors_VA = np.concatenate([self.actors_VA, np.full((extra, ACTORS), NOBODY, np.int32)])
        self.acted_V = np.concatenate([self.acted_V, np.zeros(extra, np.int64)])

    def state_dict(self, titles: int) -> dict[str, Any]:
        users = len(self.seen)
        lengths = np.minimum(self.many_U[:users], self.most_seen)
        held = [seen[:n] for seen, n in zip(self.seen, lengths.tolist(), strict=True)]
        return {
            "users": list(self.slots),
            "slots": np.array(list(self.slots.values()), np.int64),
            "seen": np.concatenate(held) if held else np.zeros(0, np.int32),
            "many_U": self.many_U[:users].copy(),
            "recent_UR": self.recent_UR[:users].copy(),
            "actors_VA": self.actors_VA[:titles].copy(),
            "acted_V": self.acted_V[:titles].copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        users, titles = len(state["many_U"]), len(state["acted_V"])
        self.slots = dict(zip(state["users"], state["slots"].tolist(), strict=True))
        self.free = sorted(set(range(users)) - set(self.slots.values()))
        while len(self.many_U) < users:
            self._grow_users()
        self.many_U[:users], self.recent_UR[:users] = state["many_U"], state["recent_UR"]
        self.actors_VA[:titles], self.acted_V[:titles] = state["actors_VA"], state["acted_V"]
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
        for row in self._rings_with(slot):
            ring, written = self.actors_VA[row], int(self.acted_V[row])
            kept = np.roll(ring, -(written % ACTORS)) if written > ACTORS else ring[:written]
            kept = kept[kept != slot]
            ring[: len(kept)], ring[len(kept) :] = kept, NOBODY
            self.acted_V[row] = len(kept)
        self.seen[slot] = np.full(8, -1, np.int32)
        self.many_U[slot], self.recent_UR[slot] = 0, NOBODY

    def _rings_with(self, slot: int) -> list[int]:
        """The titles whose rings name a slot: among those its user has seen, or anywhere where some are not held."""
        many = int(self.many_U[slot])
        if many > self.most_seen:
            rows = np.arange(len(self.actors_VA))
        else:
            rows = np.unique(self.seen[slot][:many])
            rows = rows[rows >= 0]
        named: list[int] = rows[(self.actors_VA[rows] == slot).any(1)].tolist()
        return named

    def _grow_users(self) -> None:
        self.many_U = np.concatenate([self.many_U, np.zeros_like(self.many_U)])
        self.recent_UR = np.concatenate([self.recent_UR, np.full_like(self.recent_UR, NOBODY)])


def _room(seen: NDArray[np.int32]) -> NDArray[np.int32]:
    """The same entries with room for the next: never an empty array."""
    return np.concatenate([seen, np.full(max(8, len(seen)) - len(seen), -1, np.int32)])
