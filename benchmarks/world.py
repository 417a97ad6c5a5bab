"""A simulated catalogue and audience with a version that has learned of them, for benchmarks of serving.

Zipf titles of some topics, users with a taste and 20 to 200 events. The stream's end is learned by the learner itself,
so counters, audience, ranker and network are what they are in service, but for the quality of what the network says.
"""

from collections.abc import Sequence
from sys import intern

import numpy as np
from numpy.typing import NDArray

from model.actions import ACTIONS
from model.learner import Learner, LearnerSettings, UserUpdate
from model.recommender import Recommender, Viewer
from model.state.stream_state import History, TitleMetadata

TITLES, USERS, TOPICS, MOST, HISTORY = 10_000, 2_000, 50, 200, 100
START, PACE = 1_700_000_000_000, 60_000  # ms: of the first event, and between two
PLAY = ACTIONS["play"].code


class World:
    """A catalogue and an audience: who did what, in order."""

    def __init__(self, titles: int = TITLES, users: int = USERS, seed: int = 0) -> None:
        random = self.random = np.random.default_rng(seed)
        self.topic_V = random.integers(0, TOPICS, titles)
        self.common_S, self.topics_TS = random.normal(size=256), random.normal(size=(TOPICS, 256))
        self.text_VS = self.texts(self.topic_V)
        self.weight_V = 1 / (1 + random.permutation(titles))
        self.histories = [self._events(int(n)) for n in random.integers(20, MOST + 1, users)]
        who = np.repeat(np.arange(users), [len(rows) for rows in self.histories])
        self.order = random.permutation(who)  # whose event is next
        self.times: list[list[int]] = [[] for _ in range(users)]
        for n, user in enumerate(self.order.tolist()):
            self.times[user].append(START + n * PACE)
        self.now = START + len(self.order) * PACE

    def texts(self, topic_M: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of texts on these topics."""
        text_MS = self.common_S + self.topics_TS[topic_M] + 1.5 * self.random.normal(size=(len(topic_M), 256))
        return (text_MS / np.linalg.norm(text_MS, axis=1, keepdims=True)).astype(np.float32)

    def _events(self, many: int) -> NDArray[np.int64]:
        """Titles of one user, half of them by taste."""
        mine = np.isin(self.topic_V, self.random.integers(0, TOPICS, 3))
        weight_V = self.weight_V / self.weight_V.sum() + self.weight_V * mine / (self.weight_V * mine).sum()
        rows: NDArray[np.int64] = self.random.choice(len(weight_V), many, False, weight_V / weight_V.sum())
        return rows

    def launches(self) -> list[TitleMetadata]:
        return [
            TitleMetadata(
                f"t{n}", self.text_VS[n], [f"g{topic % 20}", f"h{topic % 7}"], 1960 + n % 60, START - n, False
            )
            for n, topic in enumerate(self.topic_V.tolist())
        ]

    def viewer(self, user: int) -> Viewer:
        """As the server knows them at the end: the last 100 events, everything seen."""
        names = [intern(f"t{row}") for row in self.histories[user].tolist()]
        times, actions = self.times[user][-HISTORY:], [PLAY] * min(len(names), HISTORY)
        return Viewer(f"u{user}", names[-HISTORY:], times, actions, names, len(names))


def teach(world: World, learned: int = 600, batch: int = 50) -> Recommender:
    """A version after the world's events: all but the last are counted only, the last learned as in service."""
    learner = Learner(LearnerSettings())
    learner.observe(world.launches())
    done, actions = [0] * len(world.histories), np.full(MOST, PLAY)
    held: list[tuple[int, int]] = []
    for n, user in enumerate(world.order.tolist()):
        at = done[user]
        done[user] += 1
        if n < len(world.order) - learned:
            rows, times = world.histories[user][:at], np.array(world.times[user][:at], np.int64)
            learner.stream_state.count(History(f"u{user}", rows, times, actions[:at]), *_event(world, user, at))
            continue
        held.append((user, at))
        if len(held) == batch:
            learner.observe(_user_update(world, held))
            held = []
    return Recommender(learner.stream_state, learner.pipelines["full"])


def _event(world: World, user: int, at: int) -> tuple[int, int]:
    return int(world.histories[user][at]), world.times[user][at]


def _user_update(world: World, held: Sequence[tuple[int, int]]) -> list[UserUpdate]:
    """One micro-batch."""
    batch = []
    for user in sorted({user for user, _ in held}):
        last = max(at for one, at in held if one == user) + 1
        first = max(0, last - HISTORY)
        names = [f"t{row}" for row in world.histories[user][first:last].tolist()]
        new = [(at - first, n) for n, (one, at) in enumerate(held) if one == user]
        places, order = [at for at, _ in new], [n for _, n in new]
        batch.append(UserUpdate(f"u{user}", names, world.times[user][first:last], [PLAY] * len(names), places, order))
    return batch
