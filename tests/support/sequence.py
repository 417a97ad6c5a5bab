"""Shared by tests."""

import numpy as np
import pytest

from model.sequence.model import SequenceModel
from model.sequence.objective import StepReport
from model.state.catalog import NEVER, Catalog
from model.state.stream_state import History
from tests.support.learner import D_TEXT, NETWORK, PLAY, SEQUENCE, directions

TITLES, LIMIT = 12, NETWORK.history


def catalog(titles: int = TITLES) -> Catalog:
    made = Catalog(D_TEXT, 8)
    for n, text in enumerate(directions(np.random.default_rng(1), titles)):
        made.launch(made.row(f"t{n}", n + 1), text, [], None, None, n + 1)
    made.count_V[:titles] = 5
    return made


def history(rows: list[int], user: str = "u") -> History:
    n = len(rows)
    return History(user, np.array(rows, np.int64), np.arange(n, dtype=np.int64) * 60_000, np.full(n, PLAY, np.int64))


def learn(
    model: SequenceModel, histories: list[History], titles: Catalog, replay: float = 1.0, keep: bool = True
) -> StepReport | None:
    """The last event of each history is new."""
    n = len(titles)
    launched = np.flatnonzero(titles.born_V[:n] < NEVER)
    new = [[len(history.rows_L) - 1] for history in histories]
    report = model.learn(histories, new, titles, titles.count_V[:n].copy(), launched, titles.count_V[:n], replay)
    if keep:
        for history in histories:
            model.keep(history, len(history.rows_L))
    return report


def rounds(model: SequenceModel, titles: Catalog, steps: int, seed: int = 2) -> list[float]:
    random, losses = np.random.default_rng(seed), []
    for step in range(steps):
        histories = [history(random.integers(0, TITLES, random.integers(1, 16)).tolist(), f"u{u}") for u in range(4)]
        model.refresh(titles)
        report = learn(model, histories, titles)
        assert report is not None
        losses.append(report.loss)
        if step % 5 == 4:
            model.evict_titles(np.array([step % TITLES]))
    return losses


@pytest.fixture
def model() -> SequenceModel:
    made = SequenceModel(SEQUENCE, seed=1)
    rounds(made, catalog(), 4)
    made.refresh(catalog())
    return made
