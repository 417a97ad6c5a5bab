"""The sequence model trained on whole histories, epoch after epoch, and the ranks it then gives: the batch setting that
the literature measures, with the stream's own network, loss and optimisers.

A history is one window. Where it is longer than one, its last events are, in training as in asking, and the first of
them counts as the history's beginning: what came before is not learned. Every event has all before it in the window to
be predicted from, the first the start token alone. What is served is the average of the weights, as in the stream.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.actions import ACTIONS
from model.metrics.ranking import average_rank
from model.sequence.model import SequenceModel
from model.state.catalog import Catalog
from model.state.stream_state import History

ASKED = 256  # users ranked at once


def catalog_of(titles: Sequence[str], text_VS: NDArray[np.float32], count_V: NDArray[np.int64]) -> Catalog:
    """Every title launched, with its text vector (zero: none) and its events in training."""
    catalog = Catalog(text_VS.shape[1])
    for title, text_S in zip(titles, text_VS, strict=True):
        catalog.launch(catalog.row(title, 0), text_S, (), None, None, 0)
    catalog.count_V[: len(titles)] = count_V
    return catalog


def history_of(user: str, order_L: NDArray[np.int64], limit: int) -> History:
    """The last `limit` titles of an order as a history without times."""
    kept_L = order_L[-limit:]
    return History(user, kept_L, np.zeros_like(kept_L), np.full_like(kept_L, ACTIONS["play"].code))


def epoch(
    model: SequenceModel, catalog: Catalog, histories: Sequence[History], windows: int, rng: np.random.Generator
) -> float:
    """Learn each history once, in random order, `windows` of them a step; the mean loss in nats."""
    n = len(catalog)
    launched_M, count_V = np.arange(n), catalog.count_V[:n]
    order = rng.permutation(len(histories))
    loss = positions = 0.0
    for start in range(0, len(order), windows):
        some = [histories[k] for k in order[start : start + windows]]
        events = [range(len(history.rows_L)) for history in some]
        report = model.learn(some, events, catalog, count_V, launched_M, count_V)
        if report is not None:
            loss, positions = loss + report.loss * report.positions, positions + report.positions
    return loss / max(positions, 1)


def ranks(
    model: SequenceModel, catalog: Catalog, users: Sequence[tuple[str, NDArray[np.int64]]], target_N: Sequence[int]
) -> NDArray[np.float64]:
    """rank_N of each user's target among all titles that are not in their order."""
    model.refresh(catalog)
    limit = model.settings.network.history - 1  # training has no token further on: a window's last event is a target
    found: list[float] = []
    for start in range(0, len(users), ASKED):
        some = users[start : start + ASKED]
        hidden_ND = model.now([history_of(user, order_L, limit) for user, order_L in some], [0] * len(some))
        score_NV = model.scores(hidden_ND, 0)
        for score_V, (_, order_L), target in zip(score_NV, some, target_N[start : start + ASKED], strict=True):
            score_V[order_L] = -np.inf
            found.append(average_rank(score_V, target))
    return np.array(found)
