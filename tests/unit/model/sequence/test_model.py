"""The sequence model on the stream: what is asked in training is what is asked in serving, and an order is learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.sequence import model as sequence
from model.sequence.model import SequenceModel, SequenceSettings
from model.state.catalog import NEVER
from model.state.stream_state import History
from tests.support.learner import NETWORK, SEQUENCE, differences
from tests.support.sequence import LIMIT, TITLES, catalog, history, learn, rounds

torch.set_num_threads(1)
NO_ROWS = np.zeros(0, np.int64)


def state(model: SequenceModel, titles: int = TITLES) -> dict[str, object]:
    return {"served": model.served_state(titles), "training": model.training_state(titles)}


def before(model: SequenceModel, history: History, events: list[int]) -> NDArray[np.float32]:
    hidden_ND = model.before_events([history], np.zeros(len(events), np.int64), np.array(events, np.int64))
    hidden: NDArray[np.float32] = hidden_ND.numpy()
    return hidden


def test_an_event_is_predicted_as_a_viewer_is_served_at_that_moment(model: SequenceModel) -> None:
    histories = [history(list(range(9))), history([]), history([3, -1, 5]), history([7])]
    window_N, event_N = np.array([0, 2, 0, 3, 2, 0]), np.array([8, 2, 0, 0, 1, 4])
    asked = model.before_events(histories, window_N, event_N)
    for hidden_D, w, e in zip(asked, window_N, event_N, strict=True):
        served = model.now([histories[w].before(int(e))], [int(histories[w].times_L[e])])[0]
        torch.testing.assert_close(hidden_D, served, rtol=1e-4, atol=1e-5)


def test_no_event_is_predicted_from_itself_or_what_came_after(model: SequenceModel) -> None:
    one, other = history(list(range(9))), history([*range(4), 11, 10, 9, 9, 9])
    asked, again = before(model, one, [2, 4]), before(model, other, [2, 4])
    np.testing.assert_allclose(asked, again, rtol=1e-4, atol=1e-5)
    assert abs(before(model, one, [5]) - before(model, other, [5])).max() > 1e-3


def test_in_a_long_history_an_event_sees_at_least_half_a_window_and_nothing_beyond_one(model: SequenceModel) -> None:
    rows = (np.arange(4 * LIMIT) % TITLES).tolist()
    events = [LIMIT + 3, LIMIT + 4, 3 * LIMIT, 4 * LIMIT - 1]
    plain = before(model, history(rows), events)
    for place, event in enumerate(events):
        for back, seen in ((LIMIT // 2, True), (LIMIT + 1, False)):
            changed = rows.copy()
            changed[event - back] = (changed[event - back] + 5) % TITLES
            moved = abs(before(model, history(changed), events)[place] - plain[place]).max()
            assert moved > 1e-6 if seen else moved < 1e-6


@pytest.mark.parametrize(("length", "windows"), [(LIMIT, 1), (LIMIT + 1, 2)])
def test_a_history_that_fits_is_one_window_however_far_apart_its_new_events_are(length: int, windows: int) -> None:
    spans = sequence._cut(history(list(range(length))), [0, length - 1], LIMIT)
    assert len(spans) == windows
    assert [event for span in spans for event in span.events] == [0, length - 1]
    assert not spans[0].cut


def test_titles_that_came_since_can_be_encoded_alone(model: SequenceModel) -> None:
    more = catalog(TITLES + 5)  # beyond the first capacity too
    model.refresh(more, np.arange(TITLES, TITLES + 5))
    alone = model.e_VP.clone()
    model.refresh(more)
    torch.testing.assert_close(alone, model.e_VP)
    assert len(alone) == TITLES + 5


def test_asking_changes_nothing(model: SequenceModel) -> None:
    kept = state(model)
    model.refresh(catalog())
    histories = [history([1, 2, 3]), history([])]
    hidden_ND = model.before_events(histories, np.array([0]), np.array([2]))
    assert model.scores(model.now(histories, [10**6, 10**6]), 1).shape == (2, TITLES)
    assert model.scores(hidden_ND, 0).dtype == np.float32
    assert differences(state(model), kept) == []


def test_making_one_leaves_the_global_random_state_alone() -> None:
    kept = torch.get_rng_state()
    assert differences(state(SequenceModel(SEQUENCE, 3)), state(SequenceModel(SEQUENCE, 3))) == []
    assert torch.equal(torch.get_rng_state(), kept)


def test_it_learns_what_follows_what() -> None:
    """Viewers go around in a circle: after title n comes n + 1."""
    network = replace(NETWORK, dropout=0.0, horizons=(0,))
    objective = replace(SEQUENCE.objective, windows=(1,), negatives=32)
    settings = SequenceSettings(network, objective, replace(SEQUENCE.optim, lr=1e-2), steps=2, replayed=4, windows=64)
    model, titles, random = SequenceModel(settings), catalog(), np.random.default_rng(3)
    for step in range(40):
        starts = random.integers(0, TITLES, 6)
        histories = [
            history(((start + np.arange(7)) % TITLES).tolist(), f"u{step}-{u}") for u, start in enumerate(starts)
        ]
        learn(model, histories, titles)
    model.refresh(titles)
    asked = [history(((start + np.arange(5)) % TITLES).tolist()) for start in range(TITLES)]
    score_NV = model.scores(model.now(asked, [5 * 60_000] * TITLES), 0)
    assert score_NV.argmax(1).tolist() == [(start + 5) % TITLES for start in range(TITLES)]


def test_what_ranks_are_the_averaged_weights(model: SequenceModel) -> None:
    served, live = dict(model.served.named_parameters()), dict(model.network.named_parameters())
    for name, average in model.optimisers.dense.average.items():
        assert torch.equal(served[name], average)
    assert any(not torch.equal(served[name], live[name]) for name in served)
    learn(model, [history([1, 2, 3])], catalog())
    assert all(torch.equal(served[name], value) for name, value in model.optimisers.dense.average.items())


def test_replay_is_scaled_down_to_nothing(model: SequenceModel) -> None:
    histories = [history([1, 2, 3])]
    reports = [learn(model, histories, catalog(), replay, keep=False) for replay in (0.0, 1.0)]
    assert reports[0] is not None
    assert reports[1] is not None
    assert reports[0].positions == 1 < reports[1].positions


def test_where_no_title_is_a_candidate_nothing_is_learned(model: SequenceModel) -> None:
    kept = model.served_state(TITLES)
    titles = catalog()
    titles.born_V[:] = NEVER
    report = learn(model, [history([1, 2])], titles)
    assert report is not None
    assert (report.positions, report.skipped) == (0, False)
    assert differences(model.served_state(TITLES), kept) == []


def test_a_title_given_up_leaves_no_id_behind(model: SequenceModel) -> None:
    rows = model.optimisers.rows
    kept = rows.table_VE.clone()
    model.evict_titles(np.array([2, 500]))  # 500: launched, but never yet asked about
    assert not torch.equal(rows.table_VE[2], kept[2])
    assert torch.equal(rows.table_VE[3:], kept[3:])
    assert not (model.replay.title_NL == 2).any()


def test_a_restart_changes_no_loss_and_no_bit_that_follows(model: SequenceModel) -> None:
    kept, other = state(model), SequenceModel(SEQUENCE, seed=8)
    losses = rounds(model, catalog(), 6, seed=5)
    other.load_served(kept["served"])  # type: ignore[arg-type]
    other.load_training(kept["training"])  # type: ignore[arg-type]
    assert rounds(other, catalog(), 6, seed=5) == losses
    assert differences(state(other), state(model)) == []


def test_a_version_without_its_training_part_scores_the_same(model: SequenceModel) -> None:
    other = SequenceModel(SEQUENCE, seed=8)
    other.load_served(model.served_state(TITLES))
    other.refresh(catalog())
    histories, moments = [history([1, 2, 3]), history([])], [10**6, 5]
    for place in range(len(NETWORK.horizons)):
        one = model.scores(model.now(histories, moments), place)
        assert (one == other.scores(other.now(histories, moments), place)).all()
