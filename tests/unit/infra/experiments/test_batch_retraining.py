"""The parts of a batch retraining: windows, histories, FLOPs, and a network that learns a known stream."""

import numpy as np
import pytest
import torch

from infra.experiments.batch_retraining import (
    COUNT_EVERY_STEPS,
    EventHistories,
    FlopEstimator,
    backbone_mrr,
    train_network,
    training_windows,
)
from infra.experiments.prequential import micro_batches
from infra.learner_settings import set_threads
from model.learner import Learner
from model.state.stream_state import History
from tests.support.evaluation import SETTINGS, checkerboard, no_text

PLAY, IMPRESSION = 3, 1


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    set_threads(1)  # as the results command does; on a busy machine, more threads wait for each other


def history(events: int, action: int = PLAY) -> History:
    return History("u", np.arange(events), np.arange(events) * 1000, np.full(events, action))


@pytest.mark.parametrize("events", [1, 9, 10, 11, 37])
def test_windows_hold_every_event_once_with_context_before_it(events: int) -> None:
    learned: list[int] = []
    for window, targets in training_windows(history(events), range(events), limit=10):
        assert len(window.rows_L) <= 11  # one event more marks the window as cut
        learned += window.rows_L[targets].tolist()
        for event in targets:
            assert event >= min(int(window.rows_L[event]), 5)
    assert learned == list(range(events))


def test_context_events_are_not_targets() -> None:
    assert list(training_windows(history(4, IMPRESSION), range(4), limit=10)) == []


def test_flops_of_all_steps_are_estimated_from_counted_steps() -> None:
    cost, left, right = FlopEstimator(), torch.ones(2, 3), torch.ones(3, 4)
    for _ in range(2 * COUNT_EVERY_STEPS):
        assert torch.equal(cost.run(lambda: left @ right), torch.full((2, 4), 3.0))
    assert (cost.steps, cost.counted) == (2 * COUNT_EVERY_STEPS, 2)
    assert cost.total() == 2 * COUNT_EVERY_STEPS * 2 * 2 * 3 * 4  # a multiplication and an addition count as two
    assert FlopEstimator().total() == 0.0


def test_histories_hold_every_event_once_in_order() -> None:
    data, histories = checkerboard(200), EventHistories()
    for batch in micro_batches(data, no_text):
        histories.add(batch)
    numbers = sorted(number for events in histories.by_user.values() for *_, number in events)
    assert numbers == list(range(200))
    for user, events in histories.by_user.items():
        own = [data.event(number) for *_, number in events]
        assert [(event.user, event.title, event.ts) for event in own] == [(user, t, ts) for t, ts, _, _ in events]


@pytest.mark.learned
def test_retrained_network_learns_checkerboard() -> None:
    data, histories = checkerboard(480), EventHistories()
    learner = Learner(SETTINGS, {})
    for batch in micro_batches(data, no_text):
        learner.observe(batch)
        histories.add(batch)
    stream_state = learner.stream_state
    limit = SETTINGS.sequence.network.max_history
    learned = [history for history, _ in histories.histories(stream_state)]
    windows = [window for history in learned for window in training_windows(history, range(len(history.rows_L)), limit)]
    last = [(history, [len(history.rows_L) - 1]) for history in learned]
    untrained, trained = (
        backbone_mrr(
            train_network(SETTINGS, stream_state, windows, epochs, FlopEstimator()), stream_state, last, repeats=False
        )
        for epochs in (0, 40)
    )
    assert trained > 1.5 * untrained  # memorized: the targets are among the training events
