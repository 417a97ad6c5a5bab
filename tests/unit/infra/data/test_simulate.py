"""Simulated data: reproducible, with launches throughout, and learnable from text."""

import numpy as np
import pytest

from infra.data.datasets import Dataset
from infra.data.simulate import simulate
from model.metrics.baselines import Baselines
from model.metrics.ranking import PrequentialMetrics, average_rank


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate(users=60, titles=300, events=4000, days=90, seed=7)


def test_seed_determines_the_data_set(data: Dataset) -> None:
    again = simulate(users=60, titles=300, events=4000, days=90, seed=7)
    assert again.launches == data.launches
    assert [again.event(k) for k in range(len(again))] == [data.event(k) for k in range(len(data))]
    other = simulate(users=60, titles=300, events=4000, days=90, seed=8)
    assert other.event(0) != data.event(0)


def test_sizes_are_as_requested(data: Dataset) -> None:
    assert data.simulated
    assert (len(data), len(data.launches)) == (4000, 300)
    assert 55 <= len(data.users) <= 60


def test_titles_launch_throughout_and_before_their_events(data: Dataset) -> None:
    launched = {launch.title: launch.ts or 0 for launch in data.launches}
    assert all(launched[data.event(k).title] < data.event(k).ts for k in range(len(data)))
    in_last_third = data.launched > np.quantile(data.ts, 2 / 3)
    assert 20 < in_last_third.sum() < 200


def test_no_user_has_two_events_on_a_title(data: Dataset) -> None:
    pairs = [(data.event(k).user, data.event(k).title) for k in range(len(data))]
    assert len(set(pairs)) == len(pairs)


def test_sequels_attract_users_of_the_first_part(data: Dataset) -> None:
    names = {launch.title: launch.name for launch in data.launches}
    first = {name: title for title, name in names.items()}
    sequels = {title: first[name[:-3]] for title, name in names.items() if name.endswith(" II") and name[:-3] in first}
    assert len(sequels) > 10
    users: dict[str, set[str]] = {}
    for k in range(len(data)):
        users.setdefault(data.event(k).title, set()).add(data.event(k).user)
    watched = [(users.get(sequel, set()), users.get(original, set())) for sequel, original in sequels.items()]
    of_fans = sum(len(sequel & original) for sequel, original in watched) / sum(len(sequel) for sequel, _ in watched)
    by_chance = np.mean([len(original) for _, original in watched]) / len(data.users)
    assert of_fans > 1.5 * by_chance


def test_genre_and_recency_beat_popularity(data: Dataset) -> None:
    baselines, popularity, content = Baselines(), PrequentialMetrics(), PrequentialMetrics()
    rows = {launch.title: row for row, launch in enumerate(data.launches)}
    kinds = sorted({genre for launch in data.launches for genre in launch.genres})
    genre_VG = np.array([[genre in launch.genres for genre in kinds] for launch in data.launches], float)
    recent: dict[str, list[int]] = {}
    for launch in data.launches:
        baselines.launch(launch.title)
    for k in range(len(data)):
        event, history = data.event(k), recent.setdefault(data.event(k).user, [])
        if k > len(data) // 5:
            prior = baselines.title_events(event.title), baselines.user_events(event.user)
            popularity.add(baselines.rank(event.user, event.title, event.ts)["popularity"], *prior)
            taste_G = genre_VG[history[-4:]].sum(0)
            age_V = (event.ts - data.launched) / 86_400_000
            score_V = np.where(age_V > 0, (genre_VG @ taste_G) * (1 + 8 * np.exp(-np.maximum(age_V, 0) / 10)), -np.inf)
            score_V[history] = -np.inf
            content.add(average_rank(score_V, rows[event.title]), *prior)
        baselines.count(event.user, event.title, event.ts)
        history.append(rows[event.title])
    for group in ("all", "new_titles", "unseen_titles"):
        assert (content.report()["mrr"][group] or 0) > 1.3 * (popularity.report()["mrr"][group] or 0), group
