"""Erasures, withdrawals and relaunches at fixed places of a dataset, the same in each run of the chaos test."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec import structs

from infra.data.datasets import Dataset
from infra.data.producer import DatasetProducer
from streaming.records import ErasureRequest, Event, TitleWithdrawal, to_json
from streaming.topics import ERASURE_REQUESTS, TITLE_LAUNCHES, TITLE_WITHDRAWALS

MAX_WAIT_S: Final = 20.0  # for the events before an erasure to be learned
APART_S: Final = 0.01  # between a change and its neighbors, because equal append times would leave their order open


class Change(NamedTuple):
    """A record that is sent before the event of this number."""

    event: int
    topic: str
    key: str
    value: bytes


def scripted_changes(data: Dataset, each: int, seed: int) -> list[Change]:
    """`each` erasures, withdrawals and relaunches, at random places in the middle of the dataset."""
    random, size = np.random.default_rng(seed), len(data)
    places = np.sort(random.choice(np.arange(size // 5, 4 * size // 5), 3 * each, replace=False)).tolist()
    launched = [launch for launch in data.launches_with_events() if (launch.ts or 0) < data.ts[size // 5]]
    chosen = [launched[n] for n in random.choice(len(launched), 2 * each, replace=False).tolist()]
    changes = [_erasure(place, user) for place, user in zip(places[::3], _quiet_users(data, places[::3]), strict=True)]
    for place, launch in zip(places[1::3], chosen[:each], strict=True):
        value = to_json(TitleWithdrawal(title=launch.title))
        changes.append(Change(place, TITLE_WITHDRAWALS, launch.title, value))
    for place, launch in zip(places[2::3], chosen[each:], strict=True):
        value = to_json(structs.replace(launch, name=f"{launch.name} (restored)"))
        changes.append(Change(place, TITLE_LAUNCHES, launch.title, value))
    return sorted(changes)


def _quiet_users(data: Dataset, places: Sequence[int]) -> list[str]:
    """For each place another user with events before it, the last of them as long ago as possible.

    A flow that reads a request before an earlier event drops that event. So the number of learned events is fixed only
    if all events before the request have been read by then, also by a flow that was killed.
    """
    users: list[str] = []
    for place in places:
        last = {data.users[row]: at for at, row in enumerate(data.user[:place].tolist())}
        users.append(min((user for user in last if user not in users), key=lambda user: last[user]))
    return users


def _erasure(event: int, user: str) -> Change:
    return Change(event, ERASURE_REQUESTS, user, to_json(ErasureRequest(user=user)))


class ChangingProducer(DatasetProducer):
    """Produces a dataset, with the changes at their places."""

    def __init__(
        self, data: Dataset, changes: Sequence[Change], learned: Callable[[], int] | None = None, **options: Any
    ) -> None:
        """`learned`: the number of events that the system has learned."""
        super().__init__(data, **options)
        self.changes, self._learned = list(changes), learned
        self._erased: dict[str, int] = {}  # user -> events before the last erasure

    def erased_events(self) -> int:
        """Events that the erasures so far have removed from their users' event counts."""
        return sum(self._erased.values())

    def _wait_until_learned(self) -> None:
        """Wait for the events so far: one that is read after the request would be dropped. Not for an outage's end."""
        deadline = time.monotonic() + MAX_WAIT_S
        while self._learned is not None and self._learned() < self.events and time.monotonic() < deadline:
            time.sleep(0.1)

    def _produce_event(self, event: Event, before: Any) -> None:
        while self.changes and self.changes[0].event <= self.events:
            change = self.changes.pop(0)
            self._delivery.flush()
            if change.topic == ERASURE_REQUESTS:
                self._wait_until_learned()
            time.sleep(APART_S)
            self._delivery.send(change.topic, change.key, change.value)
            self._delivery.flush()
            time.sleep(APART_S)
            if change.topic == ERASURE_REQUESTS:
                rows = self.data.user[: self.events] == self.data.users.index(change.key)
                self._erased[change.key] = int(rows.sum())
        super()._produce_event(event, before)
