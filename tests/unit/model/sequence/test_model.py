"""The sequence model: training and serving inputs agree, an order is learned, states are restored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.sequence.model import SequenceModel
from model.settings import SequenceSettings
from model.state.catalog import NOT_LAUNCHED
from model.state.stream_state import History
from tests.support.learner import NETWORK, SEQUENCE, state_differences
from tests.support.sequence import LIMIT, TITLES, catalog, history, learn_last_events, train_random_batches

torch.set_num_threads(1)


@pytest.fixture
def model() -> SequenceModel:
    made = SequenceModel(SEQUENCE, seed=1)
    train_random_batches(made, catalog(), 4)
    made.refresh(catalog())
    return made


def state(model: SequenceModel, titles: int = TITLES) -> dict[str, object]:
    return {"served": model.served_state(titles), "training": model.training_state(titles)}


def before(model: SequenceModel, history: History, events: list[int]) -> NDArray[np.float32]:
    hidden_ND = model.hidden_before_events([history], np.zeros(len(events), np.int64), np.array(events, np.int64))
    hidden: NDArray[np.float32] = hidden_ND.numpy()
    return hidden


def test_hidden_before_events_equals_serving_at_that_time(model: SequenceModel) -> None:
    histories = [history(list(range(9))), history([]), history([3, -1, 5]), history([7])]
    history_N, event_N = np.array([0, 2, 0, 3, 2, 0]), np.array([8, 2, 0, 0, 1, 4])
    hidden_ND = model.hidden_before_events(histories, history_N, event_N)
    for hidden_D, h, e in zip(hidden_ND, history_N, event_N, strict=True):
        served = model.hidden_now([histories[h].before(int(e))], [int(histories[h].times_L[e])])[0]
        torch.testing.assert_close(hidden_D, served, rtol=1e-4, atol=1e-5)


def test_prediction_ignores_the_event_itself_and_later_ones(model: SequenceModel) -> None:
    one, other = history(list(range(9))), history([*range(4), 11, 10, 9, 9, 9])
    np.testing.assert_allclose(before(model, one, [2, 4]), before(model, other, [2, 4]), rtol=1e-4, atol=1e-5)
    assert abs(before(model, one, [5]) - before(model, other, [5])).max() > 1e-3


def test_long_history_event_sees_half_to_one_window(model: SequenceModel) -> None:
    rows = (np.arange(4 * LIMIT) % TITLES).tolist()
    events = [LIMIT + 3, LIMIT + 4, 3 * LIMIT, 4 * LIMIT - 1]
    original = before(model, history(rows), events)
    for i, event in enumerate(events):
        for distance, seen in ((LIMIT // 2, True), (LIMIT + 1, False)):
            changed = rows.copy()
            changed[event - distance] = (changed[event - distance] + 5) % TITLES
            difference = abs(before(model, history(changed), events)[i] - original[i]).max()
            assert difference > 1e-6 if seen else difference < 1e-6


def test_refresh_of_new_titles_only_equals_full_refresh(model: SequenceModel) -> None:
    more = catalog(TITLES + 5)  # also beyond the initial capacity
    model.refresh(more, np.arange(TITLES, TITLES + 5))
    alone = model.e_VP.clone()
    model.refresh(more)
    torch.testing.assert_close(alone, model.e_VP)
    assert len(alone) == TITLES + 5


def test_scoring_leaves_state_unchanged(model: SequenceModel) -> None:
    kept = state(model)
    model.refresh(catalog())
    histories = [history([1, 2, 3]), history([])]
    hidden_ND = model.hidden_before_events(histories, np.array([0]), np.array([2]))
    assert model.scores(model.hidden_now(histories, [10**6, 10**6]), 1).shape == (2, TITLES)
    assert model.scores(hidden_ND, 0).dtype == np.float32
    assert state_differences(state(model), kept) == []


def test_constructor_leaves_global_random_state_unchanged() -> None:
    kept = torch.get_rng_state()
    assert state_differences(state(SequenceModel(SEQUENCE, 3)), state(SequenceModel(SEQUENCE, 3))) == []
    assert torch.equal(torch.get_rng_state(), kept)


@pytest.mark.learned
def test_learns_the_next_title_of_a_cycle() -> None:
    """Every user watches the titles in a cycle: title n + 1 follows title n."""
    network = replace(NETWORK, dropout=0.0, horizons=(0,))
    objective = replace(SEQUENCE.objective, target_windows=(1,), negatives=32)
    settings = SequenceSettings(
        network, objective, replace(SEQUENCE.optim, lr=1e-2), steps=2, replay_windows=4, replay_capacity=64
    )
    model, titles, random = SequenceModel(settings), catalog(), np.random.default_rng(3)
    for step in range(40):
        starts = random.integers(0, TITLES, 6)
        histories = [
            history(((start + np.arange(7)) % TITLES).tolist(), f"u{step}-{u}") for u, start in enumerate(starts)
        ]
        learn_last_events(model, histories, titles)
    model.refresh(titles)
    queries = [history(((start + np.arange(5)) % TITLES).tolist()) for start in range(TITLES)]
    score_NV = model.scores(model.hidden_now(queries, [5 * 60_000] * TITLES), 0)
    assert score_NV.argmax(1).tolist() == [(start + 5) % TITLES for start in range(TITLES)]


def test_served_weights_are_the_averaged_weights(model: SequenceModel) -> None:
    served, live = dict(model.served.named_parameters()), dict(model.network.named_parameters())
    for name, average in model.optimizers.dense.average.items():
        assert torch.equal(served[name], average)
    assert any(not torch.equal(served[name], live[name]) for name in served)
    learn_last_events(model, [history([1, 2, 3])], catalog())
    assert all(torch.equal(served[name], value) for name, value in model.optimizers.dense.average.items())


def test_replay_share_zero_replays_nothing(model: SequenceModel) -> None:
    histories = [history([1, 2, 3])]
    reports = [learn_last_events(model, histories, catalog(), share, keep=False) for share in (0.0, 1.0)]
    assert reports[0] is not None
    assert reports[1] is not None
    assert reports[0].positions == 1 < reports[1].positions


def test_without_launched_titles_nothing_is_learned(model: SequenceModel) -> None:
    kept = model.served_state(TITLES)
    titles = catalog()
    titles.launch_sequence_V[:] = NOT_LAUNCHED
    report = learn_last_events(model, [history([1, 2])], titles)
    assert report is not None
    assert (report.positions, report.skipped) == (0, False)
    assert state_differences(model.served_state(TITLES), kept) == []


def test_evicted_title_leaves_no_id_embedding(model: SequenceModel) -> None:
    rows = model.optimizers.rows
    kept = rows.table_VI.clone()
    model.evict_titles(np.array([2, 500]))  # 500: a row that the table has not grown to
    assert not torch.equal(rows.table_VI[2], kept[2])
    assert torch.equal(rows.table_VI[3:], kept[3:])
    assert not (model.replay_buffer.title_NL == 2).any()


def test_restored_model_continues_with_equal_losses(model: SequenceModel) -> None:
    kept, other = state(model), SequenceModel(SEQUENCE, seed=8)
    losses = train_random_batches(model, catalog(), 6, seed=5)
    other.load_served(kept["served"])  # type: ignore[arg-type]
    other.load_training(kept["training"])  # type: ignore[arg-type]
    assert train_random_batches(other, catalog(), 6, seed=5) == losses
    assert state_differences(state(other), state(model)) == []


def test_served_state_alone_scores_the_same(model: SequenceModel) -> None:
    other = SequenceModel(SEQUENCE, seed=8)
    other.load_served(model.served_state(TITLES))
    other.refresh(catalog())
    histories, query_times = [history([1, 2, 3]), history([])], [10**6, 5]
    for h in range(len(NETWORK.horizons)):
        score_BV = model.scores(model.hidden_now(histories, query_times), h)
        assert (score_BV == other.scores(other.hidden_now(histories, query_times), h)).all()
