"""The served ranker folded for several horizons scores as the ranker does, horizon by horizon."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.signals.ranker import Ranker, RankerSettings
from model.signals.scorer import Scorer
from model.signals.table import COLUMN, SIGNALS

torch.set_num_threads(1)
HORIZONS = (0, 3, 10)


def taught(steps: int) -> Ranker:
    """A ranker after some steps over records with signals of many sizes, one of which always stays the same."""
    settings = RankerSettings(hard=6, easy=2, hidden=(16, 8), buffer=32, batch=16, visits=1e6, steps=1)
    ranker, random = Ranker(settings, 5, ("backbone",)), np.random.default_rng(6)
    size_F = 10.0 ** random.uniform(-2, 1, len(SIGNALS))
    for _ in range(20):
        signals_KF = (random.normal(size=(9, len(SIGNALS))) * size_F).astype(np.float32)
        signals_KF[:, COLUMN["tempo"]] = 3.0
        ranker.remember(signals_KF, np.zeros(9, np.float32))
    for _ in range(steps):
        ranker.learn()
    return ranker


def query(candidates: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Signals, some far outside what the ranker has seen, and the backbone's logits and lead of each horizon."""
    random = np.random.default_rng(7)
    signals_CF = random.normal(size=(candidates, len(SIGNALS))).astype(np.float32) * 30
    backbone_HC = random.normal(size=(len(HORIZONS), candidates)).astype(np.float32) * 5
    return signals_CF, backbone_HC, backbone_HC.max(1, initial=0)


@pytest.mark.parametrize("steps", [0, 1, 12])
@pytest.mark.parametrize("candidates", [0, 1, 70])
def test_each_horizon_is_scored_as_the_ranker_scores_it(steps: int, candidates: int) -> None:
    ranker, (signals_CF, backbone_HC, lead_H) = taught(steps), query(candidates)
    score_HC = Scorer(ranker, HORIZONS)(signals_CF, backbone_HC, lead_H)
    for place, delay in enumerate(HORIZONS):
        signals_CF[:, COLUMN["backbone"]] = backbone_HC[place]
        signals_CF[:, COLUMN["backbone lead"]] = backbone_HC[place] - lead_H[place]
        signals_CF[:, COLUMN["delay"]] = np.log1p(delay)
        np.testing.assert_allclose(score_HC[place], ranker.score(signals_CF), rtol=1e-4, atol=1e-4)
    assert candidates < 2 or not np.allclose(score_HC[0], score_HC[1])


def test_a_scorer_keeps_its_weights_while_the_ranker_learns_on() -> None:
    ranker, given = taught(3), query(40)
    scorer = Scorer(ranker, HORIZONS)
    before, told = scorer(*given), ranker.score(given[0])
    for _ in range(5):
        ranker.learn()
    assert not np.allclose(told, ranker.score(given[0]))
    np.testing.assert_array_equal(before, scorer(*given))
