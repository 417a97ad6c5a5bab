"""The texts of the dense reference: centered, of unit length, and compared by their cosine."""

import numpy as np
import pytest

from benchmarks.dense.inputs import centered_text, text_scores, title_signals
from benchmarks.scale_world import ScaleWorld
from model.state.stream_state import History


@pytest.fixture(scope="module")
def world() -> ScaleWorld:
    return ScaleWorld(titles=300, users=40)


def test_centered_texts_have_unit_length_and_no_common_part(world: ScaleWorld) -> None:
    text_VE = centered_text(world.state, title_signals(world.state).has_text_V)
    np.testing.assert_allclose(np.linalg.norm(text_VE, axis=1), 1, rtol=1e-4)
    assert np.linalg.norm(text_VE.mean(0)) < 0.2 < np.linalg.norm(world.state.catalog.semantic_VE[:300].mean(0))


def test_title_of_the_history_has_the_best_text(world: ScaleWorld) -> None:
    text_VE = centered_text(world.state, title_signals(world.state).has_text_V)
    one = np.ones(1, np.int64)
    score_NV = text_scores(text_VE, [History("u", 7 * one, one, one), History("v", one[:0], one[:0], one[:0])])
    assert score_NV[0].argmax() == 7
    assert score_NV[0, 7] == pytest.approx(1, abs=1e-4)
    assert not score_NV[1].any()
