"""Simulated titles and users, and a model version that has learned from them, for benchmarks of serving.

Title popularity follows Zipf's law. Titles have topics; users prefer some topics and have 20 to 200 events each. The
learner itself learns the end of the stream, so the counters, the user store, the ranker and the network have their
production form and size. Only the quality of the network is lower, because it is hardly trained.

V titles · M a subset of titles · K topics · E width of a text embedding
"""

from collections.abc import Sequence
from sys import intern
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.actions import ACTIONS
from model.learner import Learner
from model.recommender import Recommender, UserContext
from model.settings import LearnerSettings
from model.state.stream_state import History, TitleMetadata, UserUpdate

TITLES: Final = 10_000
USERS: Final = 2_000
TOPICS: Final = 50
PREFERRED_TOPICS: Final = 3  # per user
MIN_USER_EVENTS, MAX_USER_EVENTS = 20, 200
MAX_HISTORY: Final = 100  # events in a user's context
TEXT_DIM: Final = 256
START_MS: Final = 1_700_000_000_000  # of the first event
EVENT_GAP_MS: Final = 60_000
PLAY: Final = ACTIONS["play"].code


class SimulatedWorld:
    """Titles, and each user's events with their order in the stream."""

    def __init__(self, titles: int = TITLES, users: int = USERS, seed: int = 0) -> None:
        random = self.random = np.random.default_rng(seed)
        self.topic_V = random.integers(0, TOPICS, titles)
        self.common_E, self.topics_KE = random.normal(size=TEXT_DIM), random.normal(size=(TOPICS, TEXT_DIM))
        self.text_VE = self.text_embeddings(self.topic_V)
        self.weight_V = 1 / (1 + random.permutation(titles))  # Zipf
        counts = random.integers(MIN_USER_EVENTS, MAX_USER_EVENTS + 1, users)
        self.histories = [self._draw_titles(int(count)) for count in counts]  # catalog rows by user
        user_of_event = np.repeat(np.arange(users), [len(rows) for rows in self.histories])
        self.user_order = random.permutation(user_of_event)  # the user of each event of the stream
        self.times: list[list[int]] = [[] for _ in range(users)]  # ms, by user
        for n, user in enumerate(self.user_order.tolist()):
            self.times[user].append(START_MS + n * EVENT_GAP_MS)
        self.now = START_MS + len(self.user_order) * EVENT_GAP_MS

    def text_embeddings(self, topic_M: NDArray[np.int64]) -> NDArray[np.float32]:
        """Unit vectors [M, E] of random texts on these topics."""
        text_ME = self.common_E + self.topics_KE[topic_M] + 1.5 * self.random.normal(size=(len(topic_M), TEXT_DIM))
        unit_ME: NDArray[np.float32] = (text_ME / np.linalg.norm(text_ME, axis=1, keepdims=True)).astype(np.float32)
        return unit_ME

    def _draw_titles(self, count: int) -> NDArray[np.int64]:
        """Distinct titles of one user. Half of the probability goes to the user's preferred topics."""
        preferred_V = np.isin(self.topic_V, self.random.integers(0, TOPICS, PREFERRED_TOPICS))
        preferred_weight_V = self.weight_V * preferred_V
        weight_V = self.weight_V / self.weight_V.sum() + preferred_weight_V / preferred_weight_V.sum()
        rows: NDArray[np.int64] = self.random.choice(len(weight_V), count, False, weight_V / weight_V.sum())
        return rows

    def launches(self) -> list[TitleMetadata]:
        """The titles as the learner takes them."""
        return [
            TitleMetadata(
                f"t{n}", self.text_VE[n], [f"g{topic % 20}", f"h{topic % 7}"], 1960 + n % 60, START_MS - n, False
            )
            for n, topic in enumerate(self.topic_V.tolist())
        ]

    def user_context(self, user: int) -> UserContext:
        """The user at the end of the stream as `publish` knows them: the last 100 events and all seen titles."""
        names = [intern(f"t{row}") for row in self.histories[user].tolist()]
        times, actions = self.times[user][-MAX_HISTORY:], [PLAY] * min(len(names), MAX_HISTORY)
        return UserContext(f"u{user}", names[-MAX_HISTORY:], times, actions, names, len(names))


def train_recommender(world: SimulatedWorld, learned: int = 600, batch: int = 50) -> Recommender:
    """A version that includes all events: the last `learned` in micro-batches as in production, the rest as counts."""
    learner = Learner(LearnerSettings())
    learner.observe(world.launches())
    done, actions = [0] * len(world.histories), np.full(MAX_USER_EVENTS, PLAY)
    pending: list[tuple[int, int]] = []  # user, index in their history
    for n, user in enumerate(world.user_order.tolist()):
        index = done[user]
        done[user] += 1
        if n < len(world.user_order) - learned:
            rows, times = world.histories[user][:index], np.array(world.times[user][:index], np.int64)
            history = History(f"u{user}", rows, times, actions[:index])
            learner.stream_state.count_event(history, int(world.histories[user][index]), world.times[user][index])
            continue
        pending.append((user, index))
        if len(pending) == batch:
            learner.observe(user_updates(world, pending))
            pending = []
    return Recommender(learner.stream_state, learner.served_pipeline)


def user_updates(world: SimulatedWorld, events: Sequence[tuple[int, int]]) -> list[UserUpdate]:
    """A micro-batch of these (user, index) events in stream order: one update per user."""
    updates = []
    for user in sorted({user for user, _ in events}):
        end = max(index for other, index in events if other == user) + 1
        start = max(0, end - MAX_HISTORY)
        names = [f"t{row}" for row in world.histories[user][start:end].tolist()]
        new = [(index - start, n) for n, (other, index) in enumerate(events) if other == user]
        indices, order = [index for index, _ in new], [n for _, n in new]
        updates.append(UserUpdate(f"u{user}", names, world.times[user][start:end], [PLAY] * len(names), indices, order))
    return updates
