"""Replay buffer for experience replay: stored windows of histories that the network trains on again.

Without replay, an online backbone forgets what it learned earlier. The buffer is a ring of fixed-size windows; newer
windows are sampled more often. A window holds the last `max_history` events of a user. A user's open window is
rewritten whenever the user has new events. After `max_history` / 2 new events it is closed, and the next update opens
another one. So a long history is stored in overlapping windows and not only by its end. Each window stores a hash of
its user, so that all windows of an erased user can be emptied. A user holds at most `max_user_windows`; beyond that
the user's oldest window is replaced, so that one user with many events does not fill the ring.

N windows of the ring · L events of one window
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MEAN_AGE_SHARE: Final = 0.4  # of the windows held; not measured
MAX_USER_SHARE: Final = 64  # at most 1/64 of all windows belong to one user
MIN_USER_WINDOWS: Final = 8  # that a user may hold in a small buffer
_ARRAYS: Final = ("title_NL", "time_NL", "action_NL", "length_N", "truncated_N", "user_hash_N")


class ReplayBuffer:
    """A ring of `capacity` windows of at most `max_history` events.

    `mean_age_share` is the mean age of a sampled window, in windows, as a share of the number of windows held.
    """

    def __init__(self, capacity: int, max_history: int, mean_age_share: float = MEAN_AGE_SHARE) -> None:
        self.capacity, self.max_history, self.mean_age_share = capacity, max_history, mean_age_share
        self.max_user_windows = max(MIN_USER_WINDOWS, capacity // MAX_USER_SHARE)
        self.title_NL = np.full((capacity, max_history), -1, np.int32)  # catalog rows; -1: unknown title, padding
        self.time_NL = np.zeros((capacity, max_history), np.int64)  # ms
        self.action_NL = np.zeros((capacity, max_history), np.int8)
        self.length_N = np.zeros(capacity, np.int16)  # 0: an erased user's window
        self.truncated_N = np.zeros(capacity, bool)  # whether the user had events before the window
        self.user_hash_N = np.zeros(capacity, np.int64)
        self.windows_written = 0  # since the start; a window's number modulo the capacity is its position
        # user -> (number of the window that still grows, the user's event count when it began)
        self.open_windows: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return min(self.windows_written, self.capacity)

    def add(
        self, user: str, rows: NDArray[np.int64], times: NDArray[np.int64], actions: NDArray[np.int64], event_count: int
    ) -> None:
        """Store the end of a user's history; `event_count` is the number of the user's events so far."""
        number, count_at_start = self.open_windows.get(user, (-1, 0))
        held = number >= max(self.windows_written - self.capacity, 0)
        growth = event_count - count_at_start  # negative if the user was evicted meanwhile
        if not held or not 0 <= growth <= self.max_history // 2:
            number = self._new_window(user)
            self.open_windows[user] = (number, event_count)
            self.open_windows.move_to_end(user)  # the first entry is the oldest window
            if len(self.open_windows) > self.capacity:
                self.open_windows.popitem(last=False)
        at, n = number % self.capacity, min(len(rows), self.max_history)
        self._empty(at)
        self.length_N[at], self.truncated_N[at], self.user_hash_N[at] = n, event_count > n, _hash(user)
        if n:
            self.title_NL[at, :n], self.time_NL[at, :n] = rows[-n:], times[-n:]
            self.action_NL[at, :n] = actions[-n:]

    def _new_window(self, user: str) -> int:
        """The number of the user's next window: that of the oldest one for a user with `max_user_windows`."""
        last = self.windows_written - 1
        age_N = (last - np.flatnonzero(self.user_hash_N == _hash(user))) % self.capacity
        if len(age_N) >= self.max_user_windows:
            return last - int(age_N.max())
        self.windows_written += 1
        return last + 1

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions of `n` sampled windows; ages are exponential with mean `mean_age_share` times the windows held."""
        held = len(self)
        age = np.floor(rng.exponential(self.mean_age_share * max(held, 1), n)).astype(np.int64)
        return (self.windows_written - 1 - age % max(held, 1)) % self.capacity

    def evict_titles(self, rows: NDArray[np.int64]) -> None:
        """Replace evicted titles by the unknown title."""
        self.title_NL[np.isin(self.title_NL, rows)] = -1

    def erase_user(self, user: str) -> None:
        """Empty the user's windows; the empty windows stay in the ring until they are overwritten."""
        self.open_windows.pop(user, None)
        self._empty(np.flatnonzero(self.user_hash_N == _hash(user)))

    def _empty(self, at: int | NDArray[np.int64]) -> None:
        self.title_NL[at], self.time_NL[at], self.action_NL[at] = -1, 0, 0
        self.length_N[at], self.truncated_N[at], self.user_hash_N[at] = 0, False, 0

    def state_dict(self) -> dict[str, Any]:
        """Everything that later samples depend on."""
        held = len(self)
        arrays = {name: getattr(self, name)[:held].copy() for name in _ARRAYS}
        open_windows = np.array(list(self.open_windows.values()), np.int64).reshape(-1, 2)
        users = list(self.open_windows)
        counts = {"windows_written": self.windows_written, "capacity": self.capacity}
        return {**arrays, **counts, "users": users, "open_windows": open_windows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned. A buffer of another capacity takes the newest windows."""
        written, first = int(state["windows_written"]), 0
        capacity = state.get("capacity", self.capacity)
        if capacity != self.capacity:  # the windows are numbered anew: a larger ring has no gaps
            kept = min(written, capacity, self.capacity)
            first, source_N = written - kept, np.arange(written - kept, written) % capacity
            state = {**state, **{name: state[name][source_N] for name in _ARRAYS}}
        for name in _ARRAYS:
            getattr(self, name)[: len(state[name])] = state[name]
        self.windows_written = written - first
        self.open_windows = OrderedDict(
            (user, (int(number) - first, int(count_at_start)))
            for user, (number, count_at_start) in zip(state["users"], state["open_windows"], strict=True)
            if number >= first
        )


def _hash(user: str) -> int:
    return int.from_bytes(blake2b(user.encode(), digest_size=8).digest(), "little", signed=True)
