"""The order by the backbone's score alone; what a run records of it is in test_harness.py."""

import numpy as np

from infra.experiments.backbone_ranks import backbone_only, rank_by_score, recorded_name
from model.learner import Learner
from model.pipeline import RankingRequest
from model.signals.query_scores import AllScores
from model.signals.snapshot import take_snapshot
from model.state.stream_state import History
from tests.support.evaluation import SETTINGS
from tests.support.learner import title_metadata, update


def test_variant_names_of_the_backbone_only_order() -> None:
    assert backbone_only("full") == "backbone_only"
    assert backbone_only("online") == "online backbone_only"
    assert [recorded_name("a", order) for order in ("final_lists", "backbone_only")] == ["a", "a backbone_only"]


def test_rank_by_score_leaves_out_seen_and_withdrawn_titles() -> None:
    learner = Learner(SETTINGS)
    learner.observe([title_metadata(f"t{n}") for n in range(5)])
    learner.observe([title_metadata("t3", withdrawn=True), update("u", ["t4"], new=1)])
    snapshot, nothing = take_snapshot(learner.stream_state), np.zeros(0, np.int64)
    request = RankingRequest(History("u", nothing, nothing, nothing), 0, 0, 1, 0, 0)
    scores = AllScores(np.arange(5, dtype=np.float32))  # t4 was seen, t3 is withdrawn, t2 and t1 rank above t0
    assert rank_by_score(scores, snapshot, request, repeats=False) == 3
    assert rank_by_score(scores, snapshot, request, repeats=True) == 4
