"""Batch retraining: when it happens, what stays frozen in between, and what it costs."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from infra.experiments import retraining
from infra.experiments.backbone_ranks import backbone_only
from infra.experiments.harness import run_prequential
from infra.experiments.prequential import MicroBatch
from infra.experiments.retraining import (
    EPOCH_CHOICES,
    FROZEN_COUNTERS,
    ONLINE,
    RETRAINED,
    VARIANTS,
    RetrainingSchedule,
    Variants,
    new_variants,
)
from infra.learner_settings import set_threads
from infra.progress import Reporter
from model.learner import Learner
from model.settings import LearnerSettings
from model.state.stream_state import StreamState
from tests.support.evaluation import SETTINGS, SILENT, checkerboard, no_text


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    set_threads(1)  # as the results command does; on a busy machine, more threads wait for each other


class RecordingSchedule(RetrainingSchedule):
    """A schedule that also records the batch variants' weights before every micro-batch."""

    def __init__(
        self,
        settings: LearnerSettings,
        variants: Variants,
        stream_state: StreamState,
        progress: Reporter,
        every: int,
    ) -> None:
        super().__init__(settings, variants, stream_state, progress, every)
        self.snapshots: list[tuple[int, int, dict[str, Tensor], int]] = []

    def __call__(self, done: int, batch: MicroBatch) -> None:
        super().__call__(done, batch)
        weights = {}
        for name, pipeline in ((RETRAINED, self.variants.retrained), (FROZEN_COUNTERS, self.variants.frozen_counters)):
            assert pipeline.sequence is not None
            state = [*pipeline.sequence.served.parameters(), *pipeline.ranker.served_network.parameters()]
            weights[name] = torch.cat([p.detach().flatten() for p in state]).clone()
        frozen = self.variants.frozen_counters.stream_state
        self.snapshots.append((done, len(self.retrainings), weights, frozen.events))


def test_weights_change_only_at_retrainings() -> None:
    variants = new_variants(SETTINGS)
    learner = Learner(SETTINGS, dict(zip(VARIANTS, variants, strict=True)))
    schedule = RecordingSchedule(SETTINGS, variants, learner.stream_state, SILENT, every=100)
    run_prequential(checkerboard(480), no_text, learner, SILENT, before_batch=schedule)
    assert [r["events"] for r in schedule.retrainings] == [
        128,
        256,
        320,
        448,
    ]  # micro-batches that are due
    assert [len(r["mrr_by_epochs"]) for r in schedule.retrainings] == [3, 3, 0, 3]
    assert all(r["epochs"] in EPOCH_CHOICES for r in schedule.retrainings)
    for (_, count, weights, counted), (_, later, later_weights, later_counted) in pairwise(schedule.snapshots):
        for name in (RETRAINED, FROZEN_COUNTERS):
            assert torch.equal(weights[name], later_weights[name]) is (count == later)
        assert (counted == later_counted) is (count == later)
    assert [counted for _, _, _, counted in schedule.snapshots][-1] == 448  # events at the last retraining


def test_report_has_all_variants_and_their_flops() -> None:
    found = retraining.run(checkerboard(320), no_text, SETTINGS, SILENT, every=120)
    assert set(found["mrr"]) >= {
        ONLINE,
        RETRAINED,
        FROZEN_COUNTERS,
        backbone_only(ONLINE),
        backbone_only(RETRAINED),
        "popularity",
    }
    assert backbone_only(FROZEN_COUNTERS) not in found["mrr"]
    flops, trained_events = found["flops"], 128 + 256  # of two retrainings
    assert 0 < flops["network"] < flops["retrained"]
    # After so many events, online learning costs a tenth of all retrainings up to there.
    events, online, retrained = flops["tenth_at_events"], flops["online"] / 320, flops["retrained"] / trained_events
    assert online * events == pytest.approx(0.1 * retrained * events**2 / (2 * 120))


def test_frozen_counters_follow_launches_but_not_events() -> None:
    variants = new_variants(SETTINGS)
    learner = Learner(SETTINGS, dict(zip(VARIANTS, variants, strict=True)))
    run_prequential(
        checkerboard(192),
        no_text,
        learner,
        SILENT,
        before_batch=RetrainingSchedule(SETTINGS, variants, learner.stream_state, SILENT, every=10_000),
    )
    frozen = variants.frozen_counters
    assert frozen.stream_state.catalog.ids == learner.stream_state.catalog.ids
    assert (frozen.stream_state.events, learner.stream_state.events) == (0, 192)
    assert not frozen.stream_state.counters.popularity_VZ.any()
