"""Shared by tests."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from infra.data.datasets import DataSet, from_tables
from infra.data.tables import Table
from model.learner import LearnerSettings
from tests.support.learner import D_TEXT, RANKER, ROOMY, SEQUENCE

SETTINGS: Final = LearnerSettings(
    ROOMY, replace(SEQUENCE, windows=64), replace(RANKER, hard=16, easy=4, rate=1e-2), shortlist=30, seed=1
)


START, DAY = 1_600_000_000, 86_400  # seconds


def no_text(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.zeros((len(texts), D_TEXT), np.float32)


def data_of(rows: list[tuple[int, int, int]], titles: list[dict[str, Any]] | None = None) -> DataSet:
    """Events of (user, item, unix seconds)."""
    events = pd.DataFrame(rows, columns=["user", "item", "ts"])
    described = Table("titles", pd.DataFrame(titles)) if titles else None
    return from_tables(Table("events", events), described, name="made up", simulated=True)


def checkerboard(events: int, users: int = 20, titles: int = 60, repeats: bool = False) -> DataSet:
    """Even users like even titles, odd users odd ones, each of them as much as any other."""
    random = np.random.default_rng(2)
    left = {user: random.permutation(np.arange(user % 2, titles, 2)).tolist() for user in range(users)}
    rows = []
    for n in range(events):
        user = int(random.integers(users))
        while not left[user]:
            user = int(random.integers(users))
        item = int(random.choice(left[user])) if repeats else left[user].pop()
        rows.append((user, item, START + 600 * n))
    return data_of(rows)
