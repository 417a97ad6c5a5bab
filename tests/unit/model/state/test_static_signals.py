"""Static signals are computed for the given titles only, as of the counters' present time."""

import numpy as np

from model.signals.table import Static
from model.state import counters as counting
from model.state.static_signals import new_static_signals, update_static_signals
from model.state.stream_state import History, StreamState
from tests.support.learner import LARGE_STATE, PLAY, title_metadata

HOUR = 3_600_000
NOW = 1_577_836_800_000


def test_signals_of_other_titles_stay() -> None:
    counters, count_V = counting.empty_counters(4), np.array([0, 1, 2, 0], np.float32)
    counting.advance_clocks(counters, NOW, 1)
    counters.popularity_VZ[:] = 3
    static_VF = new_static_signals(4)
    update_static_signals(static_VF, counters, count_V, np.array([1, 2]))
    assert not static_VF[[0, 3]].any()
    np.testing.assert_allclose(static_VF[1:3, : counting.CLOCKS], np.log(4), rtol=1e-6)
    assert static_VF[1:3, Static.ONE_EVENT].tolist() == [1, 0]
    np.testing.assert_allclose(static_VF[1:3, Static.POPULARITY_TOTAL], np.log1p([1, 2]), rtol=1e-6)


def test_refresh_computes_changed_titles_at_once_and_all_in_turn() -> None:
    state, titles = StreamState(LARGE_STATE), 5_000
    nobody = History("u", *[np.zeros(0, np.int64)] * 3)
    state.launch(title_metadata(f"t{n}") for n in range(titles))
    assert len(state.refresh()) == titles  # all are new
    state.count_event(nobody, 4_999, NOW, PLAY)
    rows = state.refresh()
    assert rows.tolist() == [*range(2_048, 4_096), 4_999]
    assert state.static_VF[4_999, Static.ONE_EVENT] == 1
    state.count_event(nobody, 0, NOW + 10 * HOUR, PLAY)
    state.launch([title_metadata("t7", withdrawn=True)])
    before = state.static_VF[4_999, Static.POPULARITY_HOUR]
    assert state.refresh(in_turn=False).tolist() == [0]
    assert state.static_VF[4_999, Static.POPULARITY_HOUR] == before
    assert {4_096, 4_999, 0, 1_143} <= set(state.refresh().tolist())  # the turn begins again after the last title
    assert state.static_VF[4_999, Static.POPULARITY_HOUR] < before


def test_turn_continues_after_a_restart() -> None:
    states = [StreamState(LARGE_STATE)]
    states[0].launch(title_metadata(f"t{n}") for n in range(3_000))
    states[0].refresh()
    states[0].launch([title_metadata("t2999")])
    states.append(StreamState(LARGE_STATE))
    states[1].load_state_dict(states[0].state_dict())
    assert states[0].refresh().tolist() == states[1].refresh().tolist() == [*range(1_096), *range(2_048, 3_000)]
    assert states[0].static_VF[:3_000].tobytes() == states[1].static_VF[:3_000].tobytes()
