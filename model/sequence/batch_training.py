"""Batch training of the sequence model in epochs over complete histories, and the resulting ranks.

This is the setting of the literature, with the network, loss and optimizers of the online model. Each history is one
window. A longer history is truncated to its last events, in training and in evaluation, and the first of them is
treated as the user's first event. Each event is predicted from all earlier events of its window. The averaged weights
are evaluated, as in the stream.

L events of a history · N users · V titles · C launched titles · E width of a text embedding · D width of the backbone
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.actions import ACTIONS
from model.metrics.ranking import average_rank
from model.sequence.model import SequenceModel
from model.state.catalog import Catalog
from model.state.stream_state import History

RANK_BATCH = 256  # users ranked together


def build_catalog(titles: Sequence[str], text_VE: NDArray[np.float32], count_V: NDArray[np.int64]) -> Catalog:
    """A catalog in which every title is launched, with its text embedding (zero: no text) and its training events."""
    catalog = Catalog(text_VE.shape[1])
    for title, text_E in zip(titles, text_VE, strict=True):
        catalog.launch(catalog.ensure_row(title, 0), text_E, (), None, None, 0)
    catalog.count_V[: len(titles)] = count_V
    return catalog


def untimed_history(user: str, order_L: NDArray[np.int64], limit: int) -> History:
    """The last `limit` titles of a user as a history without times."""
    rows_L = order_L[-limit:]
    return History(user, rows_L, np.zeros_like(rows_L), np.full_like(rows_L, ACTIONS["play"].code))


def train_epoch(
    model: SequenceModel, catalog: Catalog, histories: Sequence[History], windows: int, rng: np.random.Generator
) -> float:
    """Train on each history once, in random order, with `windows` histories per step; return the mean loss in nats."""
    n = len(catalog)
    launched_C, count_V = np.arange(n), catalog.count_V[:n]
    order = rng.permutation(len(histories))
    loss = positions = 0.0
    for start in range(0, len(order), windows):
        batch = [histories[k] for k in order[start : start + windows]]
        events = [range(len(history.rows_L)) for history in batch]
        report = model.learn(batch, events, catalog, count_V, launched_C, count_V)
        if report is not None:
            loss, positions = loss + report.loss * report.positions, positions + report.positions
    return loss / max(positions, 1)


def rank_targets(
    model: SequenceModel, catalog: Catalog, users: Sequence[tuple[str, NDArray[np.int64]]], target_N: Sequence[int]
) -> NDArray[np.float64]:
    """rank_N of each user's target title among all titles that the user has not interacted with."""
    model.refresh(catalog)
    limit = model.settings.network.max_history - 1  # the last event of a training window is a target, never a token
    ranks: list[float] = []
    for start in range(0, len(users), RANK_BATCH):
        batch = users[start : start + RANK_BATCH]
        histories = [untimed_history(user, order_L, limit) for user, order_L in batch]
        score_NV = model.scores(model.hidden_now(histories, [0] * len(batch)), 0)
        for score_V, (_, order_L), target in zip(score_NV, batch, target_N[start : start + RANK_BATCH], strict=True):
            score_V[order_L] = -np.inf
            ranks.append(average_rank(score_V, target))
    return np.array(ranks)
