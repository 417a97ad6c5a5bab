"""The dense signals follow from the tables: known pairs give known sums, and all other titles have none."""

import numpy as np
import pytest

from benchmarks.dense.fill import new_scratch
from benchmarks.dense.gather import TRANSITION_PRIOR, gather_user_signals
from benchmarks.dense.inputs import title_signals, user_query
from benchmarks.scale_world import ScaleWorld
from model.signals.table import Matched, Summed
from model.state.stream_state import History


@pytest.fixture(scope="module")
def world() -> ScaleWorld:
    return ScaleWorld(titles=300, users=40)


def test_sums_reach_the_neighbors_of_the_history_and_no_other_title(world: ScaleWorld) -> None:
    counters, titles = world.state.counters, title_signals(world.state)
    scratch = new_scratch(300, len(titles.interactions.user_count_U))
    one = np.ones(1, np.int64)
    for row in (3, 8, 3):  # the buffers of the query before leave no trace
        query = user_query(world.state, History("stranger", row * one, world.now * one, one), world.now)
        found = gather_user_signals(query, titles, counters, scratch)
    transitions = counters.transitions
    expected_V = np.bincount(transitions.to_VK[3], transitions.weight_VK[3], 300)
    np.testing.assert_allclose(found.summed_VF[:, Summed.TRANSITION_LAST] ** 2, expected_V, rtol=1e-3)
    scale = 1 / (transitions.total_V[3] + TRANSITION_PRIOR)
    np.testing.assert_allclose(found.summed_VF[:, Summed.TRANSITION_RECENT] ** 2, expected_V * scale, rtol=1e-3)
    assert found.matched_FV[Matched.REPEAT_COUNT].tolist() == [float(row == 3) for row in range(300)]
