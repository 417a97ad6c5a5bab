"""The order of the demo's live events: a user's next event is sent once the list has the previous one.

A user chooses from lists that know the user's earlier events. Sending faster than in real time would send a user's
events before the lists can follow. So each user is a closed loop, as in a load test with a fixed number of clients: the
next event waits until the list after the previous one is in Redis, or for `TIMEOUT_S`. The order of a user's events is
kept. Users run side by side within a window of events, the earliest that may be sent first. Only a few wait at once:
the machine that runs this also writes the lists, and more users would only make each wait longer.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from infra.data.datasets import Dataset
from infra.demo.demo_client import ListClient

TIMEOUT_S: Final = 2.0  # for the list after an event
WINDOW: Final = 2_000  # events
MAX_WAITING: Final = 8  # users at once


class ClosedLoop:
    """Chooses the next event to send, of the events [start, stop) of a dataset."""

    def __init__(
        self,
        data: Dataset,
        client: ListClient,
        start: int,
        window: int = WINDOW,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.not_waited = 0  # events that were sent without the list after the previous one
        self._data, self._client, self._next, self._window = data, client, start, window
        self._timeout_s, self._clock = timeout_s, clock
        self._queues: dict[int, deque[int]] = {}  # user -> the events in the window, in order
        self._waiting: dict[int, float] = {}  # user -> deadline for the list after the event that was sent
        self._ready: list[int] = []  # heap of the events that may be sent, at most one per user
        self._size = 0  # events in the window

    def take(self) -> int | None:
        """The index of an event to send now; None if no event may be sent now, or none is left."""
        self._fill()
        self._release()
        if not self._ready or len(self._waiting) >= MAX_WAITING:
            return None
        index = heapq.heappop(self._ready)
        user = int(self._data.user[index])
        self._queues[user].popleft()
        if not self._queues[user]:
            del self._queues[user]
        self._waiting[user] = self._clock() + self._timeout_s
        self._size -= 1
        return index

    def _fill(self) -> None:
        while self._size < self._window and self._next < len(self._data):
            user = int(self._data.user[self._next])
            queue = self._queues.setdefault(user, deque())
            queue.append(self._next)
            if len(queue) == 1 and user not in self._waiting:
                heapq.heappush(self._ready, self._next)
            self._next += 1
            self._size += 1

    def _release(self) -> None:
        """End the wait of users whose list has their events, or whose time is over."""
        users = list(self._waiting)
        missing = self._client.missing([self._data.users[user] for user in users])
        now = self._clock()
        for user, events in zip(users, missing, strict=True):
            if events and now < self._waiting[user]:
                continue
            del self._waiting[user]
            if user in self._queues:
                self.not_waited += events > 0
                heapq.heappush(self._ready, self._queues[user][0])
