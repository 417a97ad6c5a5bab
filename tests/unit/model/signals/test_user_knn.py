"""Tests of the user-kNN signals: equal to plain loops over the events, and ridge votes with a known sum."""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from model.signals.fill import Scratch, new_scratch
from model.signals.inputs import title_signals, user_query
from model.signals.pool import take_slot, truncate
from model.signals.table import Summed
from model.signals.user_knn import (
    KNN_SIZE,
    NEIGHBOR_TITLES,
    NEIGHBOR_WINDOW_EVENTS,
    OVERLAP_TITLES,
    RIDGE_PENALTY,
    RIDGE_USERS,
    TITLES_PER_USER,
    add_user_knn_signals,
)
from model.state.interactions import USERS_PER_TITLE
from model.state.stream_state import History, StreamState
from tests.support.learner import LARGE_STATE, PLAY, title_metadata


@dataclass
class Event:
    """An event. Its fields become None when its user is erased or its title evicted."""

    user: str | None
    row: int | None
    listed_at: int | None  # the row among whose recent users the event counts


@dataclass
class World:
    """A stream state, and its events as a plain list."""

    titles: int
    max_seen: int = 4096
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream_state = StreamState(replace(LARGE_STATE, history=30, max_seen=self.max_seen))
        self.stream_state.launch(title_metadata(f"t{n}") for n in range(self.titles))

    def add(self, user: str, *rows: int) -> None:
        for row in rows:
            self.stream_state.count_event(self.history(user), row, len(self.events))
            self.events.append(Event(user, row, row))

    def remove(self, user: str, row: int) -> None:
        """Erase the user and evict the title."""
        self.stream_state.user_store.erase_user(user)
        self.stream_state.user_store.evict_titles(np.array([row]))
        for event in self.events:
            if event.user == user:
                event.user = event.row = None
            if event.listed_at == row:
                event.row = event.listed_at = None

    def history(self, user: str) -> History:
        rows = [event.row for event in self.events if event.user == user and event.row is not None]
        return history_of(user, *rows)

    def events_of(self, user: str) -> list[int]:
        """Return the numbers of the user's events that the index holds, oldest first."""
        return [n for n, event in enumerate(self.events) if event.user == user][-self.max_seen :]

    def idf(self, row: int) -> float:
        return 1 / (1 + float(np.log1p(self.stream_state.user_store.interactions.title_count_V[row])))


@dataclass
class Answer:
    """The signals of every title, and the similarity of each similar user in the order in which they were found."""

    summed_FV: NDArray[np.float32]
    similarity: dict[str, float]


def history_of(user: str, *rows: int) -> History:
    """Return a history of these titles, oldest first."""
    return History(user, np.array(rows, np.int64), np.arange(len(rows)), np.full(len(rows), PLAY))


def scratch_for(stream_state: StreamState) -> Scratch:
    return new_scratch(len(stream_state.catalog), len(stream_state.user_store.interactions.user_count_U))


def answer_of(world: World, history: History, scratch: Scratch | None = None) -> Answer:
    stream_state = world.stream_state
    s = scratch_for(stream_state) if scratch is None else scratch
    truncate(s.pool, 0)
    for row in range(len(s.pool.slot_V)):
        take_slot(s.pool, row)
    add_user_knn_signals(user_query(stream_state, history, 0), title_signals(stream_state), s)
    assert not s.weight_P.any()
    assert not s.pool.mark_P.any()
    found = s.touched_U[: list(s.touched_U).index(-1)].tolist()
    assert sorted(found) == np.flatnonzero(s.similarity_U).tolist()
    indices = stream_state.user_store.user_indices
    names = dict(zip(indices.values(), indices, strict=True))
    return Answer(
        s.pool.summed_PF[: len(s.pool.slot_V)].T.copy(),
        {names[user_index]: float(s.similarity_U[user_index]) for user_index in found},
    )


def random_world(users: int, titles: int, events: int, max_seen: int = 4096, removal: bool = False) -> World:
    """Add random events; with `removal`, a user and a title are removed once and return later."""
    random, world = np.random.default_rng(users), World(titles, max_seen)
    for n in range(events):
        user = int(random.integers(users))
        world.add(f"u{user}", int(random.integers(titles) * random.random() + user % 3) % titles)
        if removal and n == events * 3 // 4:
            world.remove("u1", 2)
    return world


WORLDS: Final = {
    "all events held": random_world(6, 30, 300),
    "more users per title and titles per user than read": random_world(5, 8, 900),
    "ring buffers overwritten": random_world(8, 20, 400, 18),
    "more similar users than count": random_world(110, 9, 500),
    "user and title removed": random_world(8, 20, 400, 40, removal=True),
}
QUERY_USERS: Final = ("u0", "u1", "u2", "u4", "unknown")
each_world = pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))


def queries(world: World) -> list[tuple[History, list[int]]]:
    """Return (history, its titles newest first) of each query user; the unknown user has the history of u0."""
    histories = [world.history("u0" if user == "unknown" else user) for user in QUERY_USERS]
    histories = [replace(one, user=user) for one, user in zip(histories, QUERY_USERS, strict=True)]
    return [(one, one.rows_L[:-31:-1].tolist()) for one in histories]


def events_on(world: World, row: int, query_user: str) -> list[int]:
    """Return the numbers of the latest events on a title, except those of the query user and of erased users."""
    latest = [n for n in range(len(world.events) - 1, -1, -1) if world.events[n].listed_at == row][:USERS_PER_TITLE]
    return [n for n in latest if world.events[n].user not in (None, query_user)]


def latest_titles(world: World, user: str) -> list[int]:
    rows = [world.events[n].row for n in world.events_of(user)[::-1]]
    return [row for row in rows if row is not None][:TITLES_PER_USER]


@each_world
def test_similarity_equals_a_loop_over_the_events(world: World) -> None:
    for history, recent in queries(world):
        expected: dict[str, float] = {}
        for j, h in enumerate(recent[:OVERLAP_TITLES]):
            for n in events_on(world, h, history.user):
                user = str(world.events[n].user)
                expected[user] = expected.get(user, 0.0) + 0.93**j * world.idf(h)
        events = {user: min(world.stream_state.user_store.event_count(user), TITLES_PER_USER) for user in expected}
        answer = answer_of(world, history)
        assert list(answer.similarity) == list(expected)
        for user, value in expected.items():
            assert answer.similarity[user] == pytest.approx(value / (events[user] + 10) ** 0.5, rel=1e-4)
        assert expected
        assert history.user not in expected


@each_world
def test_neighbor_signals_equal_a_loop_over_the_events(world: World) -> None:
    for history, recent in queries(world):
        answer = answer_of(world, history)
        expected_FV = np.zeros(answer.summed_FV.shape)
        for j, h in enumerate(recent[:NEIGHBOR_TITLES]):
            neighbors: set[int] = set()
            held = [(n, world.events_of(str(world.events[n].user))) for n in events_on(world, h, history.user)]
            for later_users, (n, own) in enumerate((n, own) for n, own in held if n in own):
                user, i = str(world.events[n].user), own.index(n)
                directions = own[i + 1 :][:NEIGHBOR_WINDOW_EVENTS], own[:i][::-1][:NEIGHBOR_WINDOW_EVENTS]
                for signal, numbers in zip((Summed.NEIGHBOR_AFTER, Summed.NEIGHBOR_BEFORE), directions, strict=True):
                    for step, number in enumerate(numbers):
                        row = world.events[number].row
                        if row is None:
                            continue
                        weight = 0.8**j * 0.85**step
                        expected_FV[signal, row] += weight
                        expected_FV[Summed.NEIGHBOR_RECENCY, row] += weight * 0.93**later_users
                        expected_FV[Summed.NEIGHBOR_SIMILARITY, row] += weight * answer.similarity[user]
                        neighbors.add(row)
            expected_FV[Summed.NEIGHBOR_BREADTH, list(neighbors)] += 1
        signals = slice(Summed.NEIGHBOR_AFTER, Summed.NEIGHBOR_BREADTH + 1)
        assert expected_FV[signals].any(axis=1).all()
        np.testing.assert_allclose(answer.summed_FV[signals], expected_FV[signals], rtol=1e-4, atol=1e-6)


@each_world
def test_knn_signals_equal_a_loop_over_similar_users(world: World) -> None:
    for history, recent in queries(world):
        answer = answer_of(world, history)
        expected_FV = np.zeros(answer.summed_FV.shape)
        for user in sorted(answer.similarity, key=lambda user: -answer.similarity[user])[:KNN_SIZE]:
            titles, similarity = latest_titles(world, user)[::-1], answer.similarity[user]
            shared = [i for i, title in enumerate(titles) if title in recent[:10]]
            for i, title in enumerate(titles):
                expected_FV[Summed.KNN_USERS, title] += similarity
                after = [0.85 ** (i - s - 1) for s in shared if s < i]
                before = [0.85 ** (s - i - 1) for s in shared if s > i]
                expected_FV[Summed.KNN_SESSIONS, title] += similarity * (
                    max(after, default=0) + max(before, default=0) / 2
                )
        for signal in (Summed.KNN_USERS, Summed.KNN_SESSIONS):
            assert expected_FV[signal].any()
            np.testing.assert_allclose(answer.summed_FV[signal], expected_FV[signal], rtol=1e-4, atol=1e-6)


@each_world
def test_ridge_votes_equal_a_regression_over_sets_of_titles(world: World) -> None:
    idf_V = np.array([world.idf(row) for row in range(world.titles)])
    for history, recent in queries(world):
        answer = answer_of(world, history)
        best = sorted(answer.similarity, key=lambda user: -answer.similarity[user])[:RIDGE_USERS]
        titles_AV = np.zeros((len(best), world.titles))
        for a, user in enumerate(best):
            titles_AV[a, latest_titles(world, user)] = 1
        own = sorted(set(recent))
        kernel_AA, target_A = titles_AV * idf_V @ titles_AV.T, titles_AV[:, own] @ idf_V[own]
        norm_A = 1 / np.sqrt(np.diag(kernel_AA) + 1)
        kernel_AA *= norm_A[:, None] * norm_A
        kernel_AA += RIDGE_PENALTY * np.eye(len(best))
        target_A *= norm_A / np.sqrt(idf_V[own].sum() + 1)
        vote_A = np.linalg.solve(kernel_AA, target_A)
        expected_V = (vote_A * norm_A) @ titles_AV
        atol = 1e-5 * np.abs(expected_V).max()
        np.testing.assert_allclose(answer.summed_FV[Summed.KNN_RIDGE], expected_V, rtol=0, atol=atol)


@pytest.mark.parametrize("users", [1, 2, 10, RIDGE_USERS])
@pytest.mark.parametrize("repeats", [1, 30])
def test_users_with_equal_titles_share_one_ridge_vote(users: int, repeats: int) -> None:
    world = World(5)
    for n in range(users * repeats):
        world.add(f"u{n % users}", 0, 1, 2)
    world.add("user", 0)
    answer = answer_of(world, world.history("user"))
    size = sum(world.idf(row) for row in (0, 1, 2))
    cosine, target = size / (size + 1), world.idf(0) / ((size + 1) * (world.idf(0) + 1)) ** 0.5
    vote = users * target / (users * cosine + RIDGE_PENALTY) / (size + 1) ** 0.5
    np.testing.assert_allclose(answer.summed_FV[Summed.KNN_RIDGE], [vote] * 3 + [0, 0], rtol=1e-5)


def test_query_user_is_not_similar_to_itself() -> None:
    world = World(4)
    world.add("u", 0, 1, 0, 2)
    own = answer_of(world, world.history("u"))
    assert (own.similarity, bool(own.summed_FV.any())) == ({}, False)
    unknown = answer_of(world, history_of("unknown", 0))
    assert list(unknown.similarity) == ["u"]
    assert unknown.summed_FV[Summed.KNN_USERS].astype(bool).tolist() == [True, True, True, False]
    empty = answer_of(world, history_of("unknown"))
    assert (empty.similarity, bool(empty.summed_FV.any())) == ({}, False)


def test_unknown_titles_of_the_history_are_skipped() -> None:
    world = WORLDS["all events held"]
    known = answer_of(world, history_of("u2", 4, 7, 3))
    for rows in ((-1, 4, 7, 3), (4, -1, 7, -1, 3), (4, 7, 3, -1)):
        assert answer_of(world, history_of("u2", *rows)).summed_FV.tobytes() == known.summed_FV.tobytes()


@each_world
def test_reused_scratch_gives_the_same_signals(world: World) -> None:
    histories = [history for history, _ in queries(world)] + [history_of("new"), history_of("u3", 1, 5)]
    reused = scratch_for(world.stream_state)
    expected = {history.user: answer_of(world, history) for history in histories}
    for history in [*histories, *histories[::-1], *histories[::2]]:
        answer = answer_of(world, history, reused)
        assert answer.summed_FV.tobytes() == expected[history.user].summed_FV.tobytes()
        assert answer.similarity == expected[history.user].similarity


def test_similarity_rises_with_shared_titles_and_their_rarity() -> None:
    world = World(9)
    for n in range(20):
        world.add(f"other {n}", 0)
    world.add("both", 0, 1)
    world.add("common", 0, 7)
    world.add("rare", 1, 8)
    similarity = answer_of(world, history_of("user", 0, 1)).similarity
    assert similarity["both"] > similarity["rare"] > similarity["common"]
