"""The signals of the shortlist agree with the dense scores by which it was chosen."""

import numpy as np
import pytest

from benchmarks.dense.fill import DenseScores, mean_genre_affinity
from benchmarks.dense.ranking import DenseRanking
from benchmarks.scale_world import ScaleWorld
from model.signals.table import DENSE
from model.state.stream_state import History


def test_linear_score_follows_from_the_signals_of_the_shortlist() -> None:
    world = ScaleWorld(titles=300, users=40)
    ranking = DenseRanking(world.state, world.learner.served_pipeline)
    rows = world.histories[0][-20:].astype(np.int64)
    times, actions = world.now - np.arange(len(rows))[::-1], np.ones(len(rows), np.int64)
    user = ranking.user_signals(History("u0", rows, times, actions), world.now)
    random = np.random.default_rng(0)
    text_V, backbone_V = random.random((2, 300), np.float32)
    blocked = np.arange(50, dtype=np.int32)
    best, score_V = ranking.shortlist(user, DenseScores(ranking.static_V, text_V, backbone_V), blocked, 40)
    assert len(best) == 40
    assert best.min() >= 50
    assert score_V[best].tolist() == sorted(score_V, reverse=True)[:40]
    found = ranking.candidates(user, backbone_V, best, best[:0], score_V)
    np.testing.assert_allclose(found.signals_CF[:, :DENSE] @ ranking.ranker.linear_weights_F, score_V[best], rtol=1e-4)


def test_genre_affinity_is_the_mean_over_the_genres_of_a_title() -> None:
    out_C = np.zeros(2, np.float32)
    mean_genre_affinity(np.array([[0, 2, -1], [-1, -1, -1]], np.int16), np.array([1, 5, 3], np.float32), out_C)
    assert out_C.tolist() == pytest.approx([2, 0])
