"""Signals: what a slow recomputation from the bare events gives, and a shortlist without what must not be shown."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.actions import ACTIONS, LIKING
from model.signals import candidates
from model.signals.candidates import Candidates
from model.signals.gather import gather
from model.signals.ranker import Ranker
from model.signals.table import COLUMN, COMPARED, DENSE
from model.state.catalog import genre_codes
from model.state.stream_state import History, StreamState
from tests.support.learner import RANKER, ROOMY, directions, launched

TITLES, USERS, HISTORY, NOW = 25, 8, 30, 1_700_000_000_000
GENRES: Final = ["a", "b", "c"]
NOBODY_SAW: Final = 3
NO_TEXT: Final = 4
UNDATED: Final = 6
Event = tuple[int, int, int]  # title, ms, action


@dataclass
class World:
    """A memory that has counted random events, and the events themselves."""

    stream_state: StreamState
    text: NDArray[np.float32]
    genres: list[list[str]]
    years: list[int | None]
    events: list[tuple[int, Event]] = field(default_factory=list)  # user and event, in order
    histories: dict[int, list[Event]] = field(default_factory=lambda: defaultdict(list))

    def history(self, user: int) -> History:
        columns = [np.array(column, np.int64) for column in zip(*self.histories[user], strict=True)]
        return History(f"u{user}", *columns) if columns else History(f"u{user}", *[np.zeros(0, np.int64)] * 3)


def a_world() -> World:
    random = np.random.default_rng(1)
    text = directions(random, TITLES)
    text[NO_TEXT] = 0
    genres = [random.choice(GENRES, random.integers(1, 3), replace=False).tolist() for _ in range(TITLES)]
    years: list[int | None] = [None if n == UNDATED else int(random.integers(1980, 2020)) for n in range(TITLES)]
    stream_state = StreamState(replace(ROOMY, history=HISTORY))
    stream_state.launch(
        launched(f"t{n}", text[n] if n != NO_TEXT else None, genres[n], years[n], None if n == UNDATED else NOW - n)
        for n in range(TITLES)
    )
    world = World(stream_state, text, genres, years)
    for n in range(160):
        user, title = int(random.integers(USERS)), int(random.integers(TITLES))
        if title == NOBODY_SAW:
            continue
        ts, action = NOW - (160 - n) * 1_200_000, int(random.choice([ACTIONS["play"].code, 8, 10]))
        stream_state.count(world.history(user), title, ts)
        world.events.append((user, (title, ts, action)))
        world.histories[user].append((title, ts, action))
    return world


WORLD: Final = a_world()
BACKBONE: Final = np.random.default_rng(2).normal(size=TITLES).astype(np.float32)
NOTHING: Final = np.zeros(0, np.int32)


def ask(
    user: int,
    ranker: Ranker | None = None,
    blocked: NDArray[np.int32] = NOTHING,
    most: int = TITLES,
    delay: int = 0,
    world: World = WORLD,
    backbone: NDArray[np.float32] = BACKBONE,
) -> Candidates:
    history, stream_state = world.history(user), world.stream_state
    snapshot, query = candidates.view(stream_state), stream_state.query(history, NOW, delay)
    gather(query, snapshot.titles, stream_state.counters, snapshot.scratch)
    ranker = ranker or Ranker(RANKER)
    text_V, static_V = candidates.text_scores(snapshot, [history])[0], candidates.static_scores(snapshot, ranker)
    extra_rows = np.zeros(0, np.int64)
    return candidates.find(snapshot, ranker, query, history, text_V, backbone, static_V, blocked, most, extra_rows)


def column(user: int, name: str, delay: int = 0) -> NDArray[np.float32]:
    """The signal of every title, by its row."""
    found = ask(user, delay=delay)
    assert sorted(found.rows_C.tolist()) == list(range(TITLES))
    value_V: NDArray[np.float32] = found.signals_CF[np.argsort(found.rows_C), COLUMN[name]]
    return value_V


COUNT: Final = Counter(event[0] for _, event in WORLD.events)
RARE: Final = [1 / (COUNT[title] + 1) ** 0.5 for title in range(TITLES)]


def pairs() -> dict[str, Counter[tuple[int, int]]]:
    """follow, near and together, by going through every user's events."""
    tables: dict[str, Counter[tuple[int, int]]] = {"follow": Counter(), "near": Counter(), "together": Counter()}
    for history in WORLD.histories.values():
        titles = [event[0] for event in history]
        for at, title in enumerate(titles):
            before = titles[:at][::-1]
            if before and before[0] != title:
                tables["follow"][before[0], title] += 1
            others = [other for other in before[:10] if other != title]
            for gap, other in enumerate(others):
                tables["near"][other, title] += 0.8**gap  # type: ignore[assignment]
            for other in before[:100]:
                if other != title:
                    tables["together"][other, title] += 1
                    tables["together"][title, other] += 1
    return tables


PAIRS: Final = pairs()


def newest(user: int) -> list[Event]:
    return WORLD.histories[user][::-1][:HISTORY]


def sums(user: int) -> dict[str, NDArray[np.float64]]:
    """The signals that are sums over pairs, for every title."""
    history = newest(user)
    follow, near, together = PAIRS["follow"], PAIRS["near"], PAIRS["together"]
    follows = Counter[int]()
    for (h, _), n in follow.items():
        follows[h] += n
    wanted = {name: np.zeros(TITLES) for name in DENSE}
    for c in range(TITLES):
        shared = [together[h, c] * RARE[h] * RARE[c] for h, _, _ in history]
        wanted["followed last"][c] = follow[history[0][0], c]
        wanted["followed recent"][c] = sum(
            0.6**j * follow[h, c] / (follows[h] + 3) for j, (h, _, _) in enumerate(history[:5])
        )
        wanted["near recent"][c] = sum(0.8**j * near[h, c] for j, (h, _, _) in enumerate(history[:10]))
        wanted["near share"][c] = RARE[c] * sum(
            0.8**j * near[h, c] * RARE[h] for j, (h, _, _) in enumerate(history[:10])
        )
        wanted["together recent"][c] = sum(0.93**j * one for j, one in enumerate(shared))
        wanted["together all"][c] = sum(shared)
        wanted["together most"][c] = max(shared)
        wanted["together liked"][c] = max(sum(LIKING[history[j][2]] * one for j, one in enumerate(shared)), 0)
    return {name: np.sqrt(value) for name, value in wanted.items()}


@pytest.mark.parametrize(
    "name",
    [
        *("followed last", "followed recent", "near recent", "near share"),
        *("together recent", "together all", "together most", "together liked"),
    ],
)
def test_signals_of_pairs_equal_a_count_of_the_events(name: str) -> None:
    for user in range(USERS):
        wanted = sums(user)[name]
        assert wanted.any()
        np.testing.assert_allclose(column(user, name), wanted, rtol=1e-4, atol=1e-6)


def test_alike_users_are_those_who_share_recent_and_rare_titles() -> None:
    for user in range(USERS):
        overlap: Counter[int] = Counter()
        for j, (h, _, _) in enumerate(newest(user)[:20]):
            for other, (title, _, _) in WORLD.events:
                if title == h and other != user:
                    overlap[other] += 0.93**j / (1 + np.log1p(COUNT[h]))  # type: ignore[assignment]
        wanted = np.zeros(TITLES)
        for other, weight in overlap.items():
            for title, _, _ in WORLD.histories[other]:
                wanted[title] += weight / (len(WORLD.histories[other]) + 10) ** 0.5
        np.testing.assert_allclose(column(user, "alike users"), np.sqrt(wanted), rtol=1e-4, atol=1e-6)


def test_text_signals_are_cosines_with_the_last_titles_less_what_all_texts_share() -> None:
    text = WORLD.text.astype(np.float64)
    text = text - np.delete(text, NO_TEXT, 0).mean(0)
    text[NO_TEXT] = 0
    text /= np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-9)
    for user in range(USERS):
        recent = [title for title, _, _ in newest(user)][:COMPARED]
        cosine = text @ text[recent].T
        taste = sum(0.9**j * text[title] for j, title in enumerate(recent))
        wanted = {
            "text last": cosine[:, 0],
            "text closest": cosine.max(1),
            "text closest three": np.sort(cosine, 1)[:, -3:].mean(1),
            "text recent": text @ taste / np.linalg.norm(taste),
        }
        for name, value in wanted.items():
            np.testing.assert_allclose(column(user, name), value, rtol=1e-4, atol=1e-6)
    assert column(0, "has text").tolist() == [float(title != NO_TEXT) for title in range(TITLES)]


def test_taste_of_genres_weighs_by_liking_and_years_by_recency() -> None:
    for user in range(USERS):
        history = newest(user)
        liking: Counter[str] = Counter()
        for title, _, action in history:
            for genre in WORLD.genres[title]:
                liking[genre] += LIKING[action] / len(history)  # type: ignore[assignment]
        wanted = [np.mean([liking[genre] for genre in WORLD.genres[title]]) for title in range(TITLES)]
        np.testing.assert_allclose(column(user, "genres"), wanted, rtol=1e-4, atol=1e-5)
        dated = [(0.9**j, year) for j, (title, _, _) in enumerate(history) if (year := WORLD.years[title]) is not None]
        mean = sum(weight * year for weight, year in dated) / sum(weight for weight, _ in dated)
        ahead = [0.0 if year is None else (year - mean) / 10 for year in WORLD.years]
        np.testing.assert_allclose(column(user, "year ahead"), ahead, rtol=1e-3, atol=1e-4)
        assert column(user, "year known").tolist() == [float(year is not None) for year in WORLD.years]
        close = [0.3 if year is None else 1 / (1 + ((year - mean) / 8) ** 2) for year in WORLD.years]
        np.testing.assert_allclose(column(user, "years"), close, rtol=1e-3)
    assert len(set(genre_codes(GENRES)[:3].tolist())) == 3


def test_what_a_title_borrows_from_its_text_neighbours() -> None:
    cosine = WORLD.text @ WORLD.text.T
    np.fill_diagonal(cosine, 0)
    week = np.array([WORLD.stream_state.titles().static_VS[title, 2] for title in range(TITLES)])
    wanted = []
    for row in cosine:
        near = np.sort(row)[-16]  # as many as are kept
        say = np.where((row > 0) & (row >= near), row, 0.0) ** 3
        wanted.append(float(say @ week / (say.sum() + 0.3)))
    np.testing.assert_allclose(column(0, "neighbours popular"), wanted, rtol=1e-4, atol=1e-6)
    assert wanted[NOBODY_SAW] > 0


def test_tempo_age_and_delay_are_read_off_the_clock() -> None:
    for user in range(USERS):
        history = newest(user)
        gap = np.log1p((NOW - history[0][1]) / 1000)
        span = history[: min(10, len(history))]
        tempo = np.log1p((span[0][1] - span[-1][1]) / 1000 / len(span))
        sitting = np.log1p(sum(NOW - ts < 3_600_000 for _, ts, _ in history))
        for name, value in (("gap", gap), ("tempo", tempo), ("sitting", sitting)):
            np.testing.assert_allclose(column(user, name), np.full(TITLES, value), rtol=1e-4)
        np.testing.assert_allclose(column(user, "user events"), np.log1p(len(WORLD.histories[user])), rtol=1e-5)
        np.testing.assert_allclose(column(user, "delay", delay=3), np.log1p(3), rtol=1e-5)
        np.testing.assert_allclose(column(user, "user events", 3), np.log1p(len(WORLD.histories[user]) - 3), rtol=1e-5)
    age = [0.0 if title == UNDATED else np.log1p(title / 86_400_000) for title in range(TITLES)]
    np.testing.assert_allclose(column(0, "age"), age, rtol=1e-4, atol=1e-9)


def test_the_backbone_enters_as_its_score_and_its_distance_from_the_best() -> None:
    np.testing.assert_allclose(column(1, "backbone"), BACKBONE)
    np.testing.assert_allclose(column(1, "backbone lead"), BACKBONE - BACKBONE.max(), atol=1e-6)


def test_the_linear_score_is_the_dense_signals_times_their_weights_and_the_best_come_first() -> None:
    ranker = Ranker(RANKER)
    weights = np.random.default_rng(3).normal(size=len(DENSE)).astype(np.float32)
    ranker.load_served({**ranker.served_state(), "linear_D": torch.from_numpy(weights)})
    for user in range(USERS):
        everything = ask(user, ranker)
        wanted = everything.signals_CF[:, : len(DENSE)] @ weights
        np.testing.assert_allclose(everything.score_V[everything.rows_C], wanted, rtol=1e-3, atol=1e-4)
        assert (np.diff(everything.score_V[everything.rows_C]) <= 0).all()
        few = ask(user, ranker, most=7)
        assert few.rows_C.tolist() == everything.rows_C[:7].tolist()


def test_a_title_that_nobody_saw_is_scored_from_what_is_known_of_it() -> None:
    found = ask(0)
    assert COUNT[NOBODY_SAW] == 0
    assert np.isfinite(found.score_V[NOBODY_SAW])
    assert column(0, "no event yet").tolist() == [float(COUNT[title] == 0) for title in range(TITLES)]
    assert column(0, "text neighbours")[NOBODY_SAW] > 0
    assert np.isfinite(found.signals_CF).all()


def test_a_stranger_gets_finite_signals_and_a_list() -> None:
    found = ask(USERS + 1)
    assert np.isfinite(found.signals_CF).all()
    assert found.listed == TITLES
    assert not column(USERS + 1, "together all").any()


def test_blocked_unlaunched_and_withdrawn_titles_never_come_out_of_a_shortlist() -> None:
    random, world = np.random.default_rng(4), a_world()
    world.stream_state.launch([launched("t7", withdrawn=True)])
    unlaunched = world.stream_state.row("watched before its launch")
    backbone = np.append(BACKBONE, np.float32(99))
    for most in (1, 5, TITLES, 4 * TITLES):
        blocked = random.permutation(TITLES)[:9].astype(np.int32)
        found = ask(2, blocked=np.append(blocked, np.int32(-1)), most=most, world=world, backbone=backbone)
        banned = {7, unlaunched, *blocked.tolist()}
        assert not banned & set(found.rows_C.tolist())
        assert found.listed == min(most, TITLES + 1 - len(banned))
        assert (found.score_V[list(banned)] == -np.inf).all()
    everything = np.arange(TITLES, dtype=np.int32)
    assert ask(2, blocked=everything, world=world, backbone=backbone).listed == 0
