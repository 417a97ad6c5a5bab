"""Composed pipelines change one call and nothing else."""

import math
from dataclasses import replace

import numpy as np
import pytest

from infra.data.datasets import Dataset
from infra.experiments.backbone_ranks import BackboneRanks, backbone_only
from infra.experiments.harness import ScoredEvents, run_prequential
from infra.experiments.variants import ComposedPipeline, LearnsOnly, SharedBackbone, Timed, WithoutDelayed
from model.learner import Learner
from model.pipeline import Pipeline, RankingPipeline, new_pipeline
from model.signals.ranker import Ranker
from tests.support.evaluation import SETTINGS, SILENT, checkerboard, no_text
from tests.support.learner import state_differences


@pytest.fixture(scope="module")
def data() -> Dataset:
    return checkerboard(320)


def run(data: Dataset, variants: dict[str, Pipeline], delayed_share: float = 0.5) -> ScoredEvents:
    settings = replace(SETTINGS, delayed_query_share=delayed_share)
    return run_prequential(data, no_text, Learner(settings, variants), SILENT)


def test_composed_pipeline_ranks_and_learns_as_its_own(data: Dataset) -> None:
    inner, timed = new_pipeline(SETTINGS), Timed(new_pipeline(SETTINGS))
    recorded = run(data, {"plain": new_pipeline(SETTINGS), "composed": ComposedPipeline(inner), "timed": timed})
    assert recorded.ranks["plain"] == recorded.ranks["composed"] == recorded.ranks["timed"]
    assert timed.cpu_seconds > 0
    assert timed.sequence is not None
    assert timed.sequence is timed.pipeline.sequence


def test_shared_backbone_gives_the_ranks_of_its_lender(data: Dataset) -> None:
    full, borrower = new_pipeline(SETTINGS), new_pipeline(SETTINGS, backbone=False)
    borrower.ranker = Ranker(SETTINGS.ranker, SETTINGS.seed)  # which sees the backbone's signals
    variants: dict[str, Pipeline] = {"full": full, "sharing": SharedBackbone(borrower, full)}
    ranks = BackboneRanks({"full": full, "sharing": borrower}, SETTINGS.repeats)
    recorded = run_prequential(data, no_text, Learner(SETTINGS, variants), SILENT, [ranks])
    assert recorded.ranks["sharing"] == recorded.ranks["full"]
    assert backbone_only("sharing") not in recorded.ranks  # it has no backbone of its own


def examples(pipeline: RankingPipeline) -> int:
    return pipeline.ranker.examples_written


def test_variant_without_delayed_requests_stores_no_example_of_them(data: Dataset) -> None:
    full, without, never_delayed = (new_pipeline(SETTINGS) for _ in range(3))
    run(data, {"full": full, "without": WithoutDelayed(without)})
    run(data, {"full": never_delayed}, delayed_share=0.0)
    assert examples(without) == examples(never_delayed) < examples(full)


def test_pipeline_that_learns_only_has_no_ranks_and_the_same_backbone(data: Dataset) -> None:
    ranking, learning = new_pipeline(SETTINGS), new_pipeline(SETTINGS)
    recorded = run(data, {"ranking": ranking, "learning": LearnsOnly(learning)})
    assert np.isnan(recorded.ranks["learning"]).all()
    assert max(recorded.ranks["ranking"]) < math.inf
    assert examples(learning) == 0
    states = [pipeline.training_state(60)["sequence"] for pipeline in (ranking, learning)]
    assert state_differences(states[0], states[1]) == []
