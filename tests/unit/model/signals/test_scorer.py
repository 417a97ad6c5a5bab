"""Tests of the scorer: its scores for each horizon equal those of the ranker."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.settings import RankerSettings
from model.signals.ranker import Ranker
from model.signals.scorer import Scorer
from model.signals.table import COLUMN, SIGNALS

torch.set_num_threads(1)
HORIZONS = (0, 3, 10)


def trained_ranker(steps: int) -> Ranker:
    """Return a ranker trained on signals of different scales, of which one is constant."""
    settings = RankerSettings(
        hard_negatives=6,
        uniform_negatives=2,
        hidden=(16, 8),
        buffer_examples=32,
        batch_examples=16,
        visits_per_example=1e6,
        max_steps=1,
    )
    ranker, random = Ranker(settings, 5, ("backbone",)), np.random.default_rng(6)
    size_F = 10.0 ** random.uniform(-2, 1, len(SIGNALS))
    for _ in range(20):
        signals_CF = (random.normal(size=(9, len(SIGNALS))) * size_F).astype(np.float32)
        signals_CF[:, COLUMN["inter event time"]] = 3.0
        ranker.add_example(signals_CF, np.zeros(9, np.float32))
    for _ in range(steps):
        ranker.learn()
    return ranker


def random_query(candidates: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return signals, some outside the trained range, and the backbone's scores and top score of each horizon."""
    random = np.random.default_rng(7)
    signals_CF = random.normal(size=(candidates, len(SIGNALS))).astype(np.float32) * 30
    backbone_HC = random.normal(size=(len(HORIZONS), candidates)).astype(np.float32) * 5
    return signals_CF, backbone_HC, backbone_HC.max(1, initial=0)


@pytest.mark.parametrize("steps", [0, 1, 12])
@pytest.mark.parametrize("candidates", [0, 1, 70])
def test_scores_of_each_horizon_equal_the_rankers(steps: int, candidates: int) -> None:
    ranker, (signals_CF, backbone_HC, top_H) = trained_ranker(steps), random_query(candidates)
    score_HC = Scorer(ranker, HORIZONS)(signals_CF, backbone_HC, top_H)
    for i, horizon in enumerate(HORIZONS):
        signals_CF[:, COLUMN["backbone"]] = backbone_HC[i]
        signals_CF[:, COLUMN["backbone minus top"]] = backbone_HC[i] - top_H[i]
        signals_CF[:, COLUMN["horizon"]] = np.log1p(horizon)
        np.testing.assert_allclose(score_HC[i], ranker.score(signals_CF), rtol=1e-4, atol=1e-4)
    assert candidates < 2 or not np.allclose(score_HC[0], score_HC[1])


def test_scorer_keeps_its_weights_when_the_ranker_learns() -> None:
    ranker, given = trained_ranker(3), random_query(40)
    scorer = Scorer(ranker, HORIZONS)
    before, ranker_before = scorer(*given), ranker.score(given[0])
    for _ in range(5):
        ranker.learn()
    assert not np.allclose(ranker_before, ranker.score(given[0]))
    np.testing.assert_array_equal(before, scorer(*given))
