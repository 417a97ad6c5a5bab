"""Remembers up to which event of each user training is not allowed, because the learner skips a range of its log.

Skipped events stay in the histories, where later events see them as context, and a replayed history would make each of
its events a target. So replay stores a history only from behind the user's last skipped event. One time per user is
kept. Beyond `max_users` the user that was added first is dropped.

L events of a history
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.state.stream_state import History


class UntrainedEvents:
    """The event time of each user's last skipped event."""

    def __init__(self, max_users: int) -> None:
        self.max_users = max_users
        self._last: OrderedDict[str, int] = OrderedDict()  # user -> ms; drops its first user in constant time

    def __len__(self) -> int:
        return len(self._last)

    def add(self, histories: Sequence[History], new: Sequence[Sequence[int]]) -> None:
        """Note the new events of these histories, given by their indices, as skipped."""
        for history, indices in zip(histories, new, strict=True):
            if indices:
                last = max(int(history.times_L[index]) for index in indices)
                self._last[history.user] = max(last, self._last.get(history.user, last))
                if len(self._last) > self.max_users:
                    self._last.popitem(last=False)

    def first_trained(self, history: History) -> int:
        """Index of the first event of the history behind the skipped ones."""
        last = self._last.get(history.user)
        return 0 if last is None else int(np.searchsorted(history.times_L, last, "right"))

    def erase_user(self, user: str) -> None:
        """Drop the user."""
        self._last.pop(user, None)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._last)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._last = OrderedDict(state)
