"""Small settings and synthetic datasets for the tests of the experiments."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console

from infra.data.datasets import Dataset, from_tables
from infra.data.tables import Table
from infra.progress import Reporter
from model.settings import LearnerSettings
from tests.support.learner import D_TEXT, LARGE_STATE, RANKER, SEQUENCE, random_unit_vectors

SETTINGS: Final = LearnerSettings(
    LARGE_STATE,
    replace(SEQUENCE, replay_capacity=64),
    replace(RANKER, hard_negatives=16, uniform_negatives=4, learning_rate=1e-2),
    shortlist=30,
    seed=1,
)
START_S, DAY_S = 1_600_000_000, 86_400  # unix time of the first event; a day
SILENT: Final = Reporter(Console(quiet=True))
GENRES: Final = ("Crime", "Comedy", "Horror", "Western")


def no_text(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.zeros((len(texts), D_TEXT), np.float32)


def random_text(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embeddings that distinguish the titles and mean nothing."""
    return random_unit_vectors(np.random.default_rng(1), len(texts))


def dataset_of(rows: list[tuple[int, int, int]], titles: list[dict[str, Any]] | None = None) -> Dataset:
    """A dataset of the events (user, item, unix seconds)."""
    events = pd.DataFrame(rows, columns=["user", "item", "ts"])
    described = Table("titles", pd.DataFrame(titles)) if titles else None
    return from_tables(Table("events", events), described, name="synthetic", simulated=True)


def checkerboard(events: int, users: int = 20, titles: int = 60, repeats: bool = False) -> Dataset:
    """Even users interact with even titles, odd users with odd titles, all equally often."""
    random = np.random.default_rng(2)
    left = {user: random.permutation(np.arange(user % 2, titles, 2)).tolist() for user in range(users)}
    rows = []
    for n in range(events):
        user = int(random.integers(users))
        while not left[user]:
            user = int(random.integers(users))
        item = int(random.choice(left[user])) if repeats else left[user].pop()
        rows.append((user, item, START_S + 600 * n))
    return dataset_of(rows)


def ring(events: int, users: int = 6, titles: int = 12) -> Dataset:
    """Each user walks around a ring of titles from a random start, so that each title determines the next."""
    random = np.random.default_rng(4)
    at = random.integers(titles, size=users)
    rows = []
    for n in range(events):
        user = int(random.integers(users))
        rows.append((user, int(at[user]), START_S + 600 * n))
        at[user] = (at[user] + 1) % titles
    described = [{"item": item, "title": f"t{item}", "launched_ts": START_S - 1} for item in range(titles)]
    return dataset_of(rows, described)


def genre_cycle(events: int, users: int = 16, titles: int = 80) -> Dataset:
    """Each user goes through the genres in turn. Even users like half of the genres, odd users the other half."""
    random = np.random.default_rng(4)
    left = {user: [random.permutation(np.arange(of, titles, 4)).tolist() for of in range(4)] for user in range(users)}
    rows = []
    for n in range(events):
        user, turn = n % users, n // users + (n % users) // 2
        liked = (turn % 4 < 2) == (user % 2 == 0)
        rows.append((user, left[user][turn % 4].pop(), START_S + 600 * n, 4.5 if liked else 1.0))
    described = [{"item": item, "title": f"t{item}", "genres": GENRES[item % 4]} for item in range(titles)]
    events_table = Table("events", pd.DataFrame(rows, columns=["user", "item", "ts", "rating"]))
    return from_tables(events_table, Table("titles", pd.DataFrame(described)), name="synthetic", simulated=True)
