"""Users alike: what slow loops over the bare events give, and votes whose sum is known by construction."""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from model.signals.table import (
    ALIKE_FITTED,
    ALIKE_SITTINGS,
    ALIKE_USERS,
    AROUND_AFTER,
    AROUND_ALIKE,
    AROUND_BEFORE,
    AROUND_BREADTH,
    AROUND_LATELY,
    Scratch,
    scratch,
)
from model.signals.user_knn import ALIKE, AROUND, FITTED, RECENT, RIDGE, SHARED, WINDOW, add_user_knn_signals
from model.state.interactions import USERS_PER_TITLE
from model.state.stream_state import History, StreamState
from tests.support.learner import PLAY, ROOMY, launched


@dataclass
class Taken:
    """user and row: None once forgotten · on: the row whose newest takers this one is counted among."""

    user: str | None
    row: int | None
    snapshot: int | None


@dataclass
class World:
    """A memory, and its events as a plain list."""

    titles: int
    most_seen: int = 4096
    events: list[Taken] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream_state = StreamState(replace(ROOMY, history=30, most_seen=self.most_seen))
        self.stream_state.launch(launched(f"t{n}") for n in range(self.titles))

    def take(self, user: str, *rows: int) -> None:
        for row in rows:
            self.stream_state.count(self.history(user), row, len(self.events))
            self.events.append(Taken(user, row, row))

    def forget(self, user: str, row: int) -> None:
        self.stream_state.user_store.erase_user(user)
        self.stream_state.user_store.evict_titles(np.array([row]))
        for event in self.events:
            if event.user == user:
                event.user = event.row = None
            if event.snapshot == row:
                event.row = event.snapshot = None

    def history(self, user: str) -> History:
        rows = [event.row for event in self.events if event.user == user and event.row is not None]
        return history(user, *rows)

    def by(self, user: str) -> list[int]:
        """Places of the user's events that are held, oldest first."""
        return [at for at, event in enumerate(self.events) if event.user == user][-self.most_seen :]

    def said(self, row: int) -> float:
        """What a shared title says."""
        return 1 / (1 + float(np.log1p(self.stream_state.catalog.count_V[row])))


@dataclass
class Answer:
    """The sums of every title; what each user shares with the asker, in the order in which they were found."""

    sums_MV: NDArray[np.float32]
    shared: dict[str, float]


def history(user: str, *rows: int) -> History:
    """Oldest first."""
    return History(user, np.array(rows, np.int64), np.arange(len(rows)), np.full(len(rows), PLAY))


def ask(world: World, asker: History, room: Scratch | None = None) -> Answer:
    stream_state = world.stream_state
    s = stream_state.scratch() if room is None else room
    s.sums_VM[:] = 0
    add_user_knn_signals(stream_state.query(asker, 0), stream_state.titles(), s)
    assert not s.weight_V.any()
    found = s.touched_N[: list(s.touched_N).index(-1)].tolist()
    assert sorted(found) == np.flatnonzero(s.overlap_U).tolist()
    names = {user_index: user for user, user_index in stream_state.user_store.user_indices.items()}
    return Answer(s.sums_VM.T.copy(), {names[user_index]: float(s.overlap_U[user_index]) for user_index in found})


def a_world(users: int, titles: int, events: int, most_seen: int = 4096, forget: bool = False) -> World:
    """Random events; a user and a title are forgotten on the way and come again."""
    random, world = np.random.default_rng(users), World(titles, most_seen)
    for n in range(events):
        user = int(random.integers(users))
        world.take(f"u{user}", int(random.integers(titles) * random.random() + user % 3) % titles)
        if forget and n == events * 3 // 4:
            world.forget("u1", 2)
    return world


WORLDS: Final = {
    "all is held": a_world(6, 30, 300),
    "more takers than are asked, more titles than are read": a_world(5, 8, 900),
    "users' rings are written over": a_world(8, 20, 400, 18),
    "more users than count": a_world(110, 9, 500),
    "some are forgotten": a_world(8, 20, 400, 40, forget=True),
}
ASKERS: Final = ("u0", "u1", "u2", "u4", "stranger")
each_world = pytest.mark.parametrize("world", WORLDS.values(), ids=list(WORLDS))


def askers(world: World) -> list[tuple[History, list[int]]]:
    """Questions with the asker's titles newest first; the stranger has u0's past and no place of their own."""
    histories = [world.history("u0" if user == "stranger" else user) for user in ASKERS]
    histories = [replace(one, user=user) for one, user in zip(histories, ASKERS, strict=True)]
    return [(one, one.rows_L[:-31:-1].tolist()) for one in histories]


def takers(world: World, row: int, asker: str) -> list[int]:
    """Places of the newest events on a title, but the asker's own and the forgotten."""
    newest = [at for at in range(len(world.events) - 1, -1, -1) if world.events[at].snapshot == row][:USERS_PER_TITLE]
    return [at for at in newest if world.events[at].user not in (None, asker)]


def newest(world: World, user: str) -> list[int]:
    rows = [world.events[at].row for at in world.by(user)[::-1]]
    return [row for row in rows if row is not None][:RECENT]


@each_world
def test_what_users_share_is_what_a_loop_over_the_events_adds_up(world: World) -> None:
    for asker, recent in askers(world):
        wanted: dict[str, float] = {}
        for j, h in enumerate(recent[:SHARED]):
            for at in takers(world, h, asker.user):
                user = str(world.events[at].user)
                wanted[user] = wanted.get(user, 0.0) + 0.93**j * world.said(h)
        many = {user: min(world.stream_state.user_store.count(user), RECENT) for user in wanted}
        answer = ask(world, asker)
        assert list(answer.shared) == list(wanted)
        for user, value in wanted.items():
            assert answer.shared[user] == pytest.approx(value / (many[user] + 10) ** 0.5, rel=1e-4)
        assert wanted
        assert asker.user not in wanted


@each_world
def test_what_stood_around_is_what_a_loop_over_the_events_adds_up(world: World) -> None:
    for asker, recent in askers(world):
        answer = ask(world, asker)
        wanted_MV = np.zeros(answer.sums_MV.shape)
        for j, h in enumerate(recent[:AROUND]):
            near: set[int] = set()
            held = [(at, world.by(str(world.events[at].user))) for at in takers(world, h, asker.user)]
            for late, (at, own) in enumerate((at, own) for at, own in held if at in own):
                user, here = str(world.events[at].user), own.index(at)
                ways = own[here + 1 :][:WINDOW], own[:here][::-1][:WINDOW]
                for side, way in zip((AROUND_AFTER, AROUND_BEFORE), ways, strict=True):
                    for step, place in enumerate(way):
                        row = world.events[place].row
                        if row is None:
                            continue
                        weight = 0.8**j * 0.85**step
                        wanted_MV[side, row] += weight
                        wanted_MV[AROUND_LATELY, row] += weight * 0.93**late
                        wanted_MV[AROUND_ALIKE, row] += weight * answer.shared[user]
                        near.add(row)
            wanted_MV[AROUND_BREADTH, list(near)] += 1
        around = slice(AROUND_AFTER, AROUND_BREADTH + 1)
        assert wanted_MV[around].any(axis=1).all()
        np.testing.assert_allclose(answer.sums_MV[around], wanted_MV[around], rtol=1e-4, atol=1e-6)


@each_world
def test_the_most_alike_say_what_they_took_and_what_was_near_the_askers_last_titles(world: World) -> None:
    for asker, recent in askers(world):
        answer = ask(world, asker)
        wanted_MV = np.zeros(answer.sums_MV.shape)
        best = sorted(answer.shared, key=lambda user: -answer.shared[user])[:ALIKE]
        for user in best:
            titles, similar = newest(world, user)[::-1], answer.shared[user]
            marked = [place for place, title in enumerate(titles) if title in recent[:10]]
            for place, title in enumerate(titles):
                wanted_MV[ALIKE_USERS, title] += similar
                after = [0.85 ** (place - m - 1) for m in marked if m < place]
                before = [0.85 ** (m - place - 1) for m in marked if m > place]
                wanted_MV[ALIKE_SITTINGS, title] += similar * (max(after, default=0) + max(before, default=0) / 2)
        for one in (ALIKE_USERS, ALIKE_SITTINGS):
            assert wanted_MV[one].any()
            np.testing.assert_allclose(answer.sums_MV[one], wanted_MV[one], rtol=1e-4, atol=1e-6)


@each_world
def test_votes_are_those_of_a_ridge_regression_over_sets_of_titles(world: World) -> None:
    idf_V = np.array([world.said(row) for row in range(world.titles)])
    for asker, recent in askers(world):
        answer = ask(world, asker)
        best = sorted(answer.shared, key=lambda user: -answer.shared[user])[:FITTED]
        took_AV = np.zeros((len(best), world.titles))
        for a, user in enumerate(best):
            took_AV[a, newest(world, user)] = 1
        kernel_AA, own_A = took_AV * idf_V @ took_AV.T, took_AV[:, sorted(set(recent))] @ idf_V[sorted(set(recent))]
        norm_A = 1 / np.sqrt(np.diag(kernel_AA) + 1)
        kernel_AA *= norm_A[:, None] * norm_A
        own_A *= norm_A / np.sqrt(idf_V[sorted(set(recent))].sum() + 1)
        vote_A = np.linalg.solve(kernel_AA + RIDGE * np.eye(len(best)), own_A)
        wanted_V = (vote_A * norm_A) @ took_AV
        np.testing.assert_allclose(answer.sums_MV[ALIKE_FITTED], wanted_V, atol=0.05 * np.abs(wanted_V).max())


@pytest.mark.parametrize("many", [1, 2, 10, FITTED])
@pytest.mark.parametrize("again", [1, 30])
def test_users_who_say_the_same_share_one_vote_also_where_they_say_it_again_and_again(many: int, again: int) -> None:
    world = World(5)
    for n in range(many * again):
        world.take(f"u{n % many}", 0, 1, 2)
    world.take("asker", 0)
    answer = ask(world, world.history("asker"))
    size = sum(world.said(row) for row in (0, 1, 2))
    alike, mine = size / (size + 1), world.said(0) / ((size + 1) * (world.said(0) + 1)) ** 0.5
    together = many * mine / (many * alike + RIDGE) / (size + 1) ** 0.5
    close = 1e-3 if many <= 2 else 0.05  # what a dozen sweeps leave open
    np.testing.assert_allclose(answer.sums_MV[ALIKE_FITTED], [together] * 3 + [0, 0], rtol=close)


def test_nobody_asks_himself_and_a_stranger_asks_everybody() -> None:
    world = World(4)
    world.take("u", 0, 1, 0, 2)
    own = ask(world, world.history("u"))
    assert (own.shared, bool(own.sums_MV.any())) == ({}, False)
    stranger = ask(world, history("somebody", 0))
    assert list(stranger.shared) == ["u"]
    assert stranger.sums_MV[ALIKE_USERS].astype(bool).tolist() == [True, True, True, False]
    nobody = ask(world, history("somebody"))
    assert (nobody.shared, bool(nobody.sums_MV.any())) == ({}, False)


def test_titles_of_the_past_that_are_unknown_take_no_place() -> None:
    world = WORLDS["all is held"]
    known = ask(world, history("u2", 4, 7, 3))
    for rows in ((-1, 4, 7, 3), (4, -1, 7, -1, 3), (4, 7, 3, -1)):
        assert ask(world, history("u2", *rows)).sums_MV.tobytes() == known.sums_MV.tobytes()


@each_world
def test_no_question_leaves_a_trace_in_the_next(world: World) -> None:
    stream_state = world.stream_state
    requests = [asker for asker, _ in askers(world)] + [history("new"), history("u3", 1, 5)]
    used, room = (
        stream_state.scratch(),
        (len(stream_state.catalog), len(stream_state.user_store.interactions.user_count_U)),
    )
    fresh = {one.user: ask(world, one, scratch(*room)) for one in requests}
    for one in [*requests, *requests[::-1], *requests[::2]]:
        answer = ask(world, one, used)
        assert answer.sums_MV.tobytes() == fresh[one.user].sums_MV.tobytes()
        assert answer.shared == fresh[one.user].shared


def test_more_in_common_is_more_alike_and_a_rare_title_says_more() -> None:
    world = World(9)
    for n in range(20):
        world.take(f"many {n}", 0)
    world.take("both", 0, 1)
    world.take("common", 0, 7)
    world.take("rare", 1, 8)
    shared = ask(world, history("asker", 0, 1)).shared
    assert shared["both"] > shared["rare"] > shared["common"]
