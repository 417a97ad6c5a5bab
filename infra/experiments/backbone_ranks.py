"""The two orders in which an experiment ranks a variant, and the measurement of the second.

`final_lists` is the order of a variant's lists, `backbone_only` sorts all titles by the score of its backbone alone.

V titles
"""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from infra.experiments.prequential import Measurement
from model.metrics.ranking import average_rank
from model.pipeline import PreparedRequest, RankingPipeline, RankingRequest
from model.signals.query_scores import QueryScores
from model.signals.snapshot import CatalogSnapshot

BACKBONE_ONLY, FINAL_LISTS = "backbone_only", "final_lists"
ORDER_LABELS: Final = {BACKBONE_ONLY: "backbone only", FINAL_LISTS: "final lists"}  # the two orders of a variant


def backbone_only(variant: str) -> str:
    """The name under which a variant's order by the backbone's score alone is recorded."""
    return BACKBONE_ONLY if variant == "full" else f"{variant} {BACKBONE_ONLY}"


def recorded_name(variant: str, order: str) -> str:
    """The name under which one of the two orders (ORDER_LABELS) of a variant is recorded."""
    return variant if order == FINAL_LISTS else backbone_only(variant)


class BackboneRanks(Measurement):
    """Ranks the target by the backbone's score alone, for each pipeline that has a backbone."""

    def __init__(self, pipelines: Mapping[str, RankingPipeline], repeats: bool) -> None:
        self.pipelines = {name: one for name, one in pipelines.items() if one.sequence is not None}
        self.repeats = repeats
        super().__init__({backbone_only(name): math.inf for name in self.pipelines})

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> dict[str, float]:
        n, request = prepared.n, prepared.request
        return {
            backbone_only(name): rank_by_score(pipeline.backbone[n], snapshot, request, self.repeats)
            for name, pipeline in self.pipelines.items()
        }


def rank_by_score(scores: QueryScores, snapshot: CatalogSnapshot, request: RankingRequest, repeats: bool) -> float:
    """The target's rank among all candidates by these scores. Titles that the user has seen count only if `repeats`."""
    open_V = np.where(snapshot.titles.candidate_V, scores.of(np.arange(len(snapshot.titles.candidate_V))), -np.inf)
    if not repeats:
        seen = snapshot.stream_state.user_store.seen_by(request.history.user)
        open_V[seen[seen >= 0]] = -np.inf
    return average_rank(open_V, request.target)
