"""Tests of candidate generation: signals equal a plain recomputation, and blocked titles are never listed."""

from typing import Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.signals import candidates
from model.signals.candidates import (
    TEXT_TITLES,
    Candidates,
    Scores,
    generate_candidates,
    static_scores,
    text_scores,
    updated_static_scores,
    user_signals,
)
from model.signals.inputs import title_signals, user_query
from model.signals.query_scores import AllScores
from model.signals.ranker import Ranker
from model.signals.snapshot import take_snapshot
from model.signals.table import COLUMN, DENSE_SIGNALS
from model.state.counters import WEEK_CLOCK
from model.state.stream_state import History, StreamState
from tests.support.learner import LARGE_STATE, RANKER, random_unit_vectors, title_metadata
from tests.support.signals import (
    COUNT,
    NOW,
    TITLES,
    USERS,
    WITHOUT_DATE,
    WITHOUT_EVENTS,
    WITHOUT_TEXT,
    WORLD,
    World,
    mean_year,
    newest_events,
    random_world,
)

BACKBONE: Final = np.random.default_rng(2).normal(size=TITLES).astype(np.float32)
NOTHING: Final = np.zeros(0, np.int32)


def candidates_of(
    user: int,
    ranker: Ranker | None = None,
    blocked: NDArray[np.int32] = NOTHING,
    limit: int = TITLES,
    horizon: int = 0,
    world: World = WORLD,
    backbone: NDArray[np.float32] = BACKBONE,
) -> Candidates:
    history, stream_state = world.history(user), world.stream_state
    snapshot, query = take_snapshot(stream_state), user_query(stream_state, history, NOW, horizon)
    ranker = ranker or Ranker(RANKER)
    scores = Scores(static_scores(snapshot, ranker), text_scores(snapshot, [history])[0], AllScores(backbone))
    extra_rows = np.zeros(0, np.int64)
    return generate_candidates(snapshot, ranker, user_signals(snapshot, query), scores, blocked, limit, extra_rows)


def column(user: int, name: str, horizon: int = 0) -> NDArray[np.float32]:
    """Return the signal of every title by row."""
    found = candidates_of(user, horizon=horizon)
    assert sorted(found.rows_C.tolist()) == list(range(TITLES))
    value_V: NDArray[np.float32] = found.signals_CF[np.argsort(found.rows_C), COLUMN[name]]
    return value_V


def test_title_that_rises_joins_the_best_by_static_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "STATIC_BEST", 16)
    world, ranker = random_world(), Ranker(RANKER)
    snapshot = take_snapshot(world.stream_state)
    before = static_scores(snapshot, ranker)
    worst, withdrawn = np.argsort(before.score_V)[:2].tolist()
    assert not np.isin([worst, withdrawn], before.best_M).any()
    snapshot.titles.static_VF[[worst, withdrawn]] = snapshot.titles.static_VF[np.argmax(before.score_V)]
    snapshot.titles.candidate_V[withdrawn] = False
    after = updated_static_scores(before, snapshot, ranker, np.array([worst, withdrawn]))
    assert after.best_M.tolist() == sorted([*before.best_M.tolist(), worst])


def test_text_signals_are_cosines_of_centered_embeddings() -> None:
    text = WORLD.text.astype(np.float64)
    text = text - np.delete(text, WITHOUT_TEXT, 0).mean(0)
    text[WITHOUT_TEXT] = 0
    text /= np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-9)
    for user in range(USERS):
        recent = [title for title, _, _ in newest_events(user)][:TEXT_TITLES]
        cosine = text @ text[recent].T
        profile_E = sum(0.9**j * text[title] for j, title in enumerate(recent))
        expected = {
            "text last": cosine[:, 0],
            "text closest": cosine.max(1),
            "text closest three": np.sort(cosine, 1)[:, -3:].mean(1),
            "text recent": text @ profile_E / np.linalg.norm(profile_E),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(column(user, name), value, rtol=1e-4, atol=1e-6)
    assert column(0, "has text").tolist() == [float(title != WITHOUT_TEXT) for title in range(TITLES)]


def test_invented_launches_hardly_change_the_centered_texts() -> None:
    titles, text_VE = 200, random_unit_vectors(np.random.default_rng(5), 201)
    stream_state = StreamState(LARGE_STATE)
    stream_state.launch(title_metadata(f"t{row}", text_VE[row]) for row in range(titles))
    stream_state.count_event(History("u", *[np.zeros(0, np.int64)] * 3), 0, NOW)
    stream_state.launch([])  # all have settled: they launched long before NOW
    before_VE = take_snapshot(stream_state).centered_text(np.arange(titles))
    stream_state.launch(title_metadata(f"new{n}", text_VE[titles])._replace(recorded=NOW) for n in range(64))
    after_VE = take_snapshot(stream_state).centered_text(np.arange(titles))
    assert np.einsum("ve,ve->v", before_VE, after_VE).min() > 0.999


def test_year_signals_are_relative_to_the_mean_year_of_the_user() -> None:
    for user in range(USERS):
        difference = [0.0 if year is None else (year - mean_year(user)) / 10 for year in WORLD.years]
        np.testing.assert_allclose(column(user, "year difference"), difference, rtol=1e-3, atol=1e-4)
        assert column(user, "year known").tolist() == [float(year is not None) for year in WORLD.years]


def test_text_neighbor_popularity_is_weighted_by_cosine() -> None:
    cosine = WORLD.text @ WORLD.text.T
    np.fill_diagonal(cosine, 0)
    week = np.array([title_signals(WORLD.stream_state).static_VF[title, WEEK_CLOCK] for title in range(TITLES)])
    expected = []
    for row in cosine:
        smallest = np.sort(row)[-16]  # of 16 neighbors per title
        weight_V = np.where((row > 0) & (row >= smallest), row, 0.0) ** 3
        expected.append(float(weight_V @ week / (weight_V.sum() + 0.3)))
    np.testing.assert_allclose(column(0, "text neighbor popularity"), expected, rtol=1e-4, atol=1e-6)
    assert expected[WITHOUT_EVENTS] > 0


def test_user_and_title_times_are_relative_to_the_query() -> None:
    for user in range(USERS):
        history = newest_events(user)
        idle_time = np.log1p((NOW - history[0][1]) / 1000)
        span = history[: min(10, len(history))]
        inter_event_time = np.log1p((span[0][1] - span[-1][1]) / 1000 / len(span))
        session_events = np.log1p(sum(NOW - ts < 3_600_000 for _, ts, _ in history))
        expected = {"user idle time": idle_time, "inter event time": inter_event_time, "session events": session_events}
        for name, value in expected.items():
            np.testing.assert_allclose(column(user, name), np.full(TITLES, value), rtol=1e-4)
        np.testing.assert_allclose(column(user, "user events"), np.log1p(len(WORLD.histories[user])), rtol=1e-5)
        np.testing.assert_allclose(column(user, "horizon", horizon=3), np.log1p(3), rtol=1e-5)
        np.testing.assert_allclose(column(user, "user events", 3), np.log1p(len(WORLD.histories[user]) - 3), rtol=1e-5)
    days = [0.0 if title == WITHOUT_DATE else np.log1p(title / 86_400_000) for title in range(TITLES)]
    np.testing.assert_allclose(column(0, "days since release"), days, rtol=1e-4, atol=1e-9)


def test_backbone_signals_are_score_and_difference_from_top() -> None:
    np.testing.assert_allclose(column(1, "backbone"), BACKBONE)
    np.testing.assert_allclose(column(1, "backbone minus top"), BACKBONE - BACKBONE.max(), atol=1e-6)


def test_shortlist_is_ordered_by_linear_score() -> None:
    ranker = Ranker(RANKER)
    weights = np.random.default_rng(3).normal(size=len(DENSE_SIGNALS)).astype(np.float32)
    ranker.load_served({**ranker.served_state(), "linear_F": torch.from_numpy(weights)})
    for user in range(USERS):
        everything = candidates_of(user, ranker)
        expected = everything.signals_CF[:, : len(DENSE_SIGNALS)] @ weights
        np.testing.assert_allclose(everything.score_C, expected, rtol=1e-3, atol=1e-4)
        assert (np.diff(everything.score_C) <= 0).all()
        shortlist = candidates_of(user, ranker, limit=7)
        assert shortlist.rows_C.tolist() == everything.rows_C[:7].tolist()


def test_title_without_events_is_scored_from_metadata() -> None:
    found = candidates_of(0)
    assert COUNT[WITHOUT_EVENTS] == 0
    assert np.isfinite(found.score_C[list(found.rows_C).index(WITHOUT_EVENTS)])
    assert column(0, "no events").tolist() == [float(COUNT[title] == 0) for title in range(TITLES)]
    assert column(0, "text neighbor cooccurrence")[WITHOUT_EVENTS] > 0
    assert np.isfinite(found.signals_CF).all()


def test_unknown_user_gets_finite_signals_and_a_shortlist() -> None:
    found = candidates_of(USERS + 1)
    assert np.isfinite(found.signals_CF).all()
    assert found.shortlist_size == TITLES
    assert not column(USERS + 1, "cooccurrence all").any()


def test_blocked_unlaunched_and_withdrawn_titles_are_not_candidates() -> None:
    random, world = np.random.default_rng(4), random_world()
    world.stream_state.launch([title_metadata("t7", withdrawn=True)])
    unlaunched = world.stream_state.ensure_row("not launched")
    backbone = np.append(BACKBONE, np.float32(99))
    for limit in (1, 5, TITLES, 4 * TITLES):
        blocked = random.permutation(TITLES)[:9].astype(np.int32)
        found = candidates_of(2, blocked=np.append(blocked, np.int32(-1)), limit=limit, world=world, backbone=backbone)
        banned = {7, unlaunched, *blocked.tolist()}
        assert not banned & set(found.rows_C.tolist())
        assert found.shortlist_size == min(limit, TITLES + 1 - len(banned))
        assert (found.score_M[np.isin(found.considered_M, list(banned))] == -np.inf).all()
    everything = np.arange(TITLES, dtype=np.int32)
    assert candidates_of(2, blocked=everything, world=world, backbone=backbone).shortlist_size == 0
