"""Windows of past histories to learn from again, newer ones more often: without replay an online backbone forgets.

A ring of fixed-size windows. A user's newest window is overwritten as it grows until half of it is new; then it stays
and another begins, so that a long history is kept in overlapping pieces and not only by its end. Each window knows its
user by a hash, so that all of a user's can be emptied.
"""

from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_ARRAYS: Final = ("title_NL", "time_NL", "action_NL", "length_N", "cut_N", "owner_N")


class DatasetProducer:
    """title_NL int32 rows (-1 pad), time_NL int64 ms, action_NL int8, length_N int16, cut_N whether the user had
    events before the window, owner_N int64 hash of the user; `written` windows ever."""

    def __init__(self, windows: int, history: int, recency: float = 0.4) -> None:
        self.size, self.history, self.recency = windows, history, recency
        self.title_NL = np.full((windows, history), -1, np.int32)
        self.time_NL = np.zeros((windows, history), np.int64)
        self.action_NL = np.zeros((windows, history), np.int8)
        self.length_N = np.zeros(windows, np.int16)
        self.cut_N = np.zeros(windows, bool)
        self.owner_N = np.zeros(windows, np.int64)
        self.written = 0
        self.open: dict[str, tuple[int, int]] = {}  # user -> (number of the window still growing, events it began with)

    def __len__(self) -> int:
        return min(self.written, self.size)

    def add(
        self, user: str, rows: NDArray[np.int64], times: NDArray[np.int64], actions: NDArray[np.int64], many: int
    ) -> None:
        """Keep the end of a user's history, whose newest event is the user's `many`-th."""
        number, began = self.open.get(user, (-1, 0))
        held = number >= max(self.written - self.size, 0)
        grown = many - began  # negative where the user was forgotten meanwhile
        if not held or not 0 <= grown <= self.history // 2:
            number = self.written
            self.open.pop(user, None)  # re-inserted last: the first is the one opened longest ago
            self.open[user] = (number, many)
            self.written += 1
            if len(self.open) > self.size:
                self.open.pop(next(iter(self.open)))
        at, n = number % self.size, min(len(rows), self.history)
        self._empty(at)
        self.length_N[at], self.cut_N[at], self.owner_N[at] = n, many > n, _hash(user)
        if n:
            self.title_NL[at, :n], self.time_NL[at, :n] = rows[-n:], times[-n:]
            self.action_NL[at, :n] = actions[-n:]

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Places of `n` windows, drawn with ages of exponential distribution, mean `recency` of what is held."""
        held = len(self)
        age = np.floor(rng.exponential(self.recency * max(held, 1), n)).astype(np.int64)
        return (self.written - 1 - age % max(held, 1)) % self.size

    def evict_titles(self, rows: NDArray[np.int64]) -> None:
        """Evicted titles become unknown ones."""
        self.title_NL[np.isin(self.title_NL, rows)] = -1

    def erase_user(self, user: str) -> None:
        """Empty the user's windows; they stay in the ring until their turn comes."""
        self.open.pop(user, None)
        self._empty(np.flatnonzero(self.owner_N == _hash(user)))

    def _empty(self, at: int | NDArray[np.int64]) -> None:
        self.title_NL[at], self.time_NL[at], self.action_NL[at] = -1, 0, 0
        self.length_N[at], self.cut_N[at], self.owner_N[at] = 0, False, 0

    def state_dict(self) -> dict[str, Any]:
        held = len(self)
        arrays = {name: getattr(self, name)[:held].copy() for name in _ARRAYS}
        opened = np.array(list(self.open.values()), np.int64).reshape(-1, 2)
        return {**arrays, "written": self.written, "users": list(self.open), "open": opened}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in (name for name in _ARRAYS if name in state):
            getattr(self, name)[: len(state[name])] = state[name]
        self.written = state["written"]
        pairs = [(int(number), int(began)) for number, began in state["open"]]
        self.open = dict(zip(state["users"], pairs, strict=True))
        if "owner_N" not in state:
            self._find_owners()

    def _find_owners(self) -> None:
        """For a state from before windows had owners: whose user is not known could not be forgotten, and goes."""
        for user, (number, _) in self.open.items():
            if number >= self.written - self.size:
                self.owner_N[number % self.size] = _hash(user)
        self._empty(np.flatnonzero(self.owner_N == 0))


def _hash(user: str) -> int:
    return int.from_bytes(blake2b(user.encode(), digest_size=8).digest(), "little", signed=True)
