"""Retraining as a rival: when it happens, what it learns from, what stands still in between, and what it costs."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from infra.experiments import retraining
from infra.experiments.batch_retraining import COUNTED, Cost, Histories, asked_alone, fitted, pieces
from infra.experiments.evaluate import micro_batches
from infra.experiments.harness import Batch, Say, stream
from infra.experiments.retraining import NAMES, ONLINE, RETRAINED, STILL, Retraining, pipelines
from model.learner import Learner, LearnerSettings
from model.state.stream_state import History
from tests.support.evaluation import SETTINGS, checkerboard, no_text

PLAY, IMPRESSION = 3, 1


def quiet(_line: str) -> None:
    """Progress that nobody reads."""


def history(events: int, action: int = PLAY) -> History:
    return History("u", np.arange(events), np.arange(events) * 1000, np.full(events, action))


@pytest.mark.parametrize("events", [1, 9, 10, 11, 37])
def test_windows_hold_every_event_once_with_half_a_window_before_it(events: int) -> None:
    learned: list[int] = []
    for window, asked in pieces(history(events), range(events), limit=10):
        assert len(window.rows_L) <= 11  # one more than a window says that there was something before it
        learned += window.rows_L[asked].tolist()
        for event in asked:
            assert event >= min(int(window.rows_L[event]), 5)
    assert learned == list(range(events))


def test_what_is_context_only_is_no_target() -> None:
    assert list(pieces(history(4, IMPRESSION), range(4), limit=10)) == []


def test_costs_are_those_of_every_step_from_those_counted() -> None:
    cost, left, right = Cost(), torch.ones(2, 3), torch.ones(3, 4)
    for _ in range(2 * COUNTED):
        assert torch.equal(cost.of(lambda: left @ right), torch.full((2, 4), 3.0))
    assert (cost.steps, cost.counted) == (2 * COUNTED, 2)
    assert cost.total() == 2 * COUNTED * 2 * 2 * 3 * 4  # a multiplication and its addition are two
    assert Cost().total() == 0.0


def test_histories_hold_every_event_in_order_once() -> None:
    data, histories = checkerboard(200), Histories()
    for batch in micro_batches(data, no_text):
        histories.add(batch)
    numbers = sorted(number for events in histories.of.values() for *_, number in events)
    assert numbers == list(range(200))
    for user, events in histories.of.items():
        own = [data.event(number) for *_, number in events]
        assert [(event.user, event.title, event.ts) for event in own] == [(user, t, ts) for t, ts, _, _ in events]


class Watching(Retraining):
    """A schedule that notes the rivals' weights at every micro-batch."""

    def __init__(self, settings: LearnerSettings, learner: Learner, say: Say, every: int) -> None:
        super().__init__(settings, learner, say, every)
        self.noted: list[tuple[int, int, dict[str, Tensor], int]] = []

    def __call__(self, done: int, batch: Batch) -> None:
        super().__call__(done, batch)
        weights = {}
        for name in (RETRAINED, STILL):
            rival = self.learner.pipelines[name]
            assert rival.sequence is not None
            state = [*rival.sequence.served.parameters(), *rival.ranker.network.parameters()]
            weights[name] = torch.cat([p.detach().flatten() for p in state]).clone()
        still = self.learner.pipelines[STILL]
        assert isinstance(still, retraining.Still)
        self.noted.append((done, len(self.times), weights, still.stream_state.events))


def test_retraining_comes_with_the_first_micro_batch_that_is_due_and_nothing_moves_in_between() -> None:
    learner = Learner(SETTINGS, dict(zip(NAMES, pipelines(SETTINGS), strict=True)))
    schedule = Watching(SETTINGS, learner, quiet, every=100)
    stream(checkerboard(480), no_text, learner, quiet, before=schedule)
    assert [one["events"] for one in schedule.times] == [128, 256, 320, 448]  # the first past each hundred
    assert [len(one["tried"]) for one in schedule.times] == [3, 3, 0, 3]
    assert all(one["epochs"] in retraining.EPOCHS for one in schedule.times)
    for (_, times, weights, counted), (_, later, later_weights, later_counted) in pairwise(schedule.noted):
        for name in (RETRAINED, STILL):
            assert torch.equal(weights[name], later_weights[name]) is (times == later)
        assert (counted == later_counted) is (times == later)
    assert [counted for _, _, _, counted in schedule.noted][-1] == 448  # what had happened when it was last made


def test_the_report_has_all_three_and_what_they_cost() -> None:
    found = retraining.run(checkerboard(320), no_text, SETTINGS, quiet, every=120)
    assert set(found["mrr"]) >= {ONLINE, RETRAINED, STILL, "online alone", "retrained alone", "popularity"}
    assert STILL + " alone" not in found["mrr"]
    flops, met = found["flops"], 128 + 256  # events times retrainings
    assert 0 < flops["network"] < flops["retrained"]
    # At as many events, all that it costs to learn online is a tenth of all retrainings up to there.
    whole, of_online, of_rival = flops["tenth"], flops["online"] / 320, flops["retrained"] / met
    assert of_online * whole == pytest.approx(0.1 * of_rival * whole**2 / (2 * 120))


def test_a_copy_of_the_counters_follows_launches_and_no_event() -> None:
    three = pipelines(SETTINGS)
    learner = Learner(SETTINGS, dict(zip(NAMES, three, strict=True)))
    stream(checkerboard(192), no_text, learner, quiet, before=Retraining(SETTINGS, learner, quiet, every=10_000))
    still = three[2]
    assert still.stream_state.catalog.ids == learner.stream_state.catalog.ids
    assert (still.stream_state.events, learner.stream_state.events) == (0, 192)
    assert not still.stream_state.counters.popular_VC.any()


def test_a_retrained_network_finds_the_checkerboard() -> None:
    data, histories = checkerboard(480), Histories()
    learner = Learner(SETTINGS, {})
    for batch in micro_batches(data, no_text):
        learner.observe(batch)
        histories.add(batch)
    stream_state = learner.stream_state
    limit = SETTINGS.sequence.network.history
    learned = [history for history, _ in histories.histories(stream_state)]
    windows = [piece for history in learned for piece in pieces(history, range(len(history.rows_L)), limit)]
    asked = [(history, [len(history.rows_L) - 1]) for history in learned]
    few, many = (
        asked_alone(fitted(SETTINGS, stream_state, windows, epochs, Cost()), stream_state, asked, repeats=False)
        for epochs in (0, 40)
    )
    assert many > 1.5 * few  # by heart: the events asked are among those learned
