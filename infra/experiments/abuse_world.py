"""The simulated service that `make abuse` attacks: a learner, the histories of its users, and the lists that it serves.

The learner learns a simulated stream in the micro-batches of production. Each attack starts from a copy of that state,
so attacks are compared with the same state without an attack.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import Dataset
from infra.experiments.prequential import BATCH_EVENTS, micro_batches
from model.actions import ACTIONS
from model.learner import Learner
from model.recommender import Recommender, UserContext
from model.settings import LearnerSettings
from model.state.stream_state import TitleMetadata, UserUpdate
from streaming.records import ACTIVITY_HISTORY, action_code

LIST_SIZE: Final = 100
NEW_TITLE_SLOTS: Final = 5
TOP: Final = 10
QUERY_DELAY_MS: Final = 60_000  # from the last event to the time of the lists
RECOMMEND_BATCH: Final = 25  # users per call
PLAY: Final = ACTIONS["play"].code

Lists = Mapping[str, Sequence[str]]  # user -> the titles of the list, best first


class WorldEvent(NamedTuple):
    """An event of the stream, honest or fake."""

    user: str
    title: str
    ts: int  # ms
    action: int = PLAY


@dataclass
class World:
    """A learner and the histories of its users."""

    learner: Learner
    histories: dict[str, list[tuple[str, int, int]]]  # user -> (title, ms, action), oldest first
    now: int = 0  # ms, the latest event

    @classmethod
    def after(cls, data: Dataset, encode: Encoder, settings: LearnerSettings) -> Self:
        """The world after the events of a dataset."""
        world = cls(Learner(settings), {})
        for batch in micro_batches(data, encode):
            world.learner.observe(batch)
        for user, title, ts, action in simulated_events(data):
            world.histories.setdefault(user, []).append((title, ts, action))
            world.now = ts
        return world

    def copy(self, **limits: Any) -> "World":
        """A copy that can be attacked. `limits` replace fields of the settings of the stream state."""
        settings = self.learner.settings
        learner = Learner(replace(settings, stream_state=replace(settings.stream_state, **limits)))
        learner.load_state_dict(copy.deepcopy(self.learner.state_dict()))
        return World(learner, {user: list(history) for user, history in self.histories.items()}, self.now)

    def learn(
        self, events: Sequence[WorldEvent], titles: Sequence[TitleMetadata] = (), ranked_share: float = 1.0
    ) -> None:
        """Launch the titles, then learn the events in micro-batches. `ranked_share` is that of `Learner.observe`."""
        if titles:
            self.learner.observe(titles)
        for start in range(0, len(events), BATCH_EVENTS):
            self.learner.observe(list(self._updates(events[start : start + BATCH_EVENTS])), 1.0, ranked_share)

    def lists(self, users: Iterable[str]) -> dict[str, list[str]]:
        """The list of each user, without the titles that the user has seen."""
        recommender = Recommender(self.learner.stream_state, self.learner.served_pipeline)
        contexts = [self._context(user) for user in users]
        ranked = [
            one
            for start in range(0, len(contexts), RECOMMEND_BATCH)
            for one in recommender.recommend(
                contexts[start : start + RECOMMEND_BATCH], self.now + QUERY_DELAY_MS, LIST_SIZE, NEW_TITLE_SLOTS
            )
        ]
        return {context.user: one.titles[0] for context, one in zip(contexts, ranked, strict=True)}

    def candidates(self) -> set[str]:
        """The titles that can be recommended."""
        catalog = self.learner.stream_state.catalog
        return {catalog.ids[row] for row in np.flatnonzero(catalog.candidate_V).tolist()}

    def users_in_store(self) -> set[str]:
        """The users whose events the learner knows."""
        return set(self.learner.stream_state.user_store.user_indices)

    def state_bytes(self) -> int:
        """The size of all arrays and ids of the stream state."""
        return sum(_sizes(self.learner.stream_state.state_dict()))

    def _updates(self, events: Sequence[WorldEvent]) -> Iterator[UserUpdate]:
        """One update per user, as `features` writes it."""
        new: dict[str, list[int]] = {}
        for order, (user, title, ts, action) in enumerate(events):
            self.histories.setdefault(user, []).append((title, ts, action))
            self.now = max(self.now, ts)
            new.setdefault(user, []).append(order)
        for user, order_of_new in new.items():
            history = self.histories[user] = self.histories[user][-ACTIVITY_HISTORY - len(order_of_new) :]
            names, times, actions = zip(*history, strict=True)
            indices = range(len(history) - len(order_of_new), len(history))
            yield UserUpdate(user, names, times, actions, indices, order_of_new)

    def _context(self, user: str) -> UserContext:
        names, times, actions = zip(*self.histories[user], strict=True)
        events = self.learner.stream_state.user_store.event_count(user)
        return UserContext(user, names, times, actions, names, events)


def simulated_events(data: Dataset) -> list[WorldEvent]:
    """The events of a dataset, in order."""
    events = (data.event(index) for index in range(len(data)))
    return [WorldEvent(event.user, event.title, event.ts, action_code(event)) for event in events]


def mean_overlap(lists: Lists, others: Lists) -> float:
    """The mean share of each user's top titles that is also in the user's other top."""
    shares = [len(set(lists[user][:TOP]) & set(others[user][:TOP])) / TOP for user in lists]
    return float(np.mean(shares)) if shares else 1.0


def entered(title: str, lists: Lists, without: Lists, size: int) -> int:
    """The number of users who have the title among the first `size` only because of the attack."""
    return sum(title in lists[user][:size] and title not in without[user][:size] for user in lists)


def mean_lost(lists: Lists, others: Lists) -> float:
    """The mean number of each user's titles that are not in the user's other list."""
    return float(np.mean([len(set(lists[user]) - set(others[user])) for user in lists]))


def _sizes(value: Any) -> Iterator[int]:
    if isinstance(value, np.ndarray):
        yield int(value.nbytes)
    elif isinstance(value, str):
        yield len(value.encode())
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _sizes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sizes(item)


def unit_vectors(random: np.random.Generator, count: int, width: int) -> NDArray[np.float32]:
    """Random unit vectors, [count, width]."""
    vectors = random.normal(size=(count, width))
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit
