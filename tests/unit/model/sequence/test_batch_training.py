"""Batch training: every history is learned once per epoch, long histories are cut, and seen titles are not ranked."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model.sequence.batch_training import build_catalog, rank_targets, train_epoch, untimed_history
from model.sequence.model import SequenceModel
from model.sequence.objective import StepReport
from tests.support.learner import D_TEXT, SEQUENCE

SETTINGS = replace(
    SEQUENCE,
    network=replace(SEQUENCE.network, horizons=(0,)),
    objective=replace(SEQUENCE.objective, target_windows=(1,)),
)


class RecordingModel(SequenceModel):
    """Records what it is asked to learn. The loss of a step is its number of events."""

    def __init__(self) -> None:
        super().__init__(SETTINGS, seed=0)
        self.steps: list[dict[str, list[int]]] = []

    def learn(self, *arguments: Any, **_: Any) -> StepReport | None:
        histories, new = arguments[:2]
        self.steps.append({history.user: list(events) for history, events in zip(histories, new, strict=True)})
        events = sum(map(len, new))
        return StepReport(loss=float(events), positions=events, skipped=False)


def test_catalog_has_launched_titles_with_their_texts_and_counts() -> None:
    text_VE = np.eye(3, D_TEXT, dtype=np.float32)
    catalog = build_catalog(["a", "b", "c"], text_VE, np.array([4, 0, 7]))
    assert catalog.rows == {"a": 0, "b": 1, "c": 2}
    assert catalog.count_V[:3].tolist() == [4, 0, 7]
    assert catalog.candidate_V[:3].all()
    np.testing.assert_array_equal(catalog.semantic_VE[:3], text_VE)


def test_epoch_learns_every_event_of_every_history_once() -> None:
    model = RecordingModel()
    catalog = build_catalog(["a", "b"], np.zeros((2, D_TEXT), np.float32), np.ones(2, np.int64))
    histories = [untimed_history(f"u{u}", np.zeros(1 + u, np.int64), 9) for u in range(5)]
    loss = train_epoch(model, catalog, histories, windows=2, rng=np.random.default_rng(1))
    assert [len(step) for step in model.steps] == [2, 2, 1]
    learned = {user: events for step in model.steps for user, events in step.items()}
    assert learned == {f"u{u}": list(range(1 + u)) for u in range(5)}
    sizes = [sum(map(len, step.values())) for step in model.steps]
    assert loss == pytest.approx(sum(size**2 for size in sizes) / sum(sizes))  # the mean over events


def test_earlier_titles_are_not_candidates() -> None:
    model = SequenceModel(SETTINGS, 0)
    catalog = build_catalog([f"t{v}" for v in range(5)], np.zeros((5, D_TEXT), np.float32), np.ones(5, np.int64))
    title_L = np.array([0, 3, 1])
    both = rank_targets(model, catalog, [("u", title_L)] * 2, [2, 4])
    assert sorted(both.tolist()) == [1, 2]


def test_history_is_the_end_of_a_sequence() -> None:
    history = untimed_history("u", np.arange(9), 4)
    assert history.rows_L.tolist() == [5, 6, 7, 8]
    assert len(history.actions_L) == len(history.times_L) == 4
