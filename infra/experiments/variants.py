"""Pipelines that an experiment composes around one of the product's: each adds to some of its calls, or drops them."""

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.pipeline import Pipeline, PreparedRequest, RankingPipeline, RankingRequest, RankResult
from model.sequence.model import SequenceModel
from model.signals.ranker import Ranker
from model.signals.snapshot import CatalogSnapshot
from model.state.catalog import Catalog
from model.state.stream_state import History

NOT_RANKED: Final = RankResult(float("nan"), np.zeros(0, np.int64))


class ComposedPipeline:
    """Passes all calls on to the pipeline that it holds."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @property
    def ranker(self) -> Ranker:
        return self.pipeline.ranker

    @property
    def sequence(self) -> SequenceModel | None:
        return self.pipeline.sequence

    @property
    def learns(self) -> bool:
        return self.pipeline.learns

    def refresh(self, catalog: Catalog, rows: NDArray[np.int64]) -> None:
        self.pipeline.refresh(catalog, rows)

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        self.pipeline.prepare(snapshot, histories, requests)

    def rank(self, snapshot: CatalogSnapshot, prepared: PreparedRequest, top_k: int = 0) -> RankResult:
        return self.pipeline.rank(snapshot, prepared, top_k)

    def learn(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], new: Sequence[Sequence[int]], replay_share: float
    ) -> dict[str, float]:
        return self.pipeline.learn(snapshot, histories, new, replay_share)


class Timed(ComposedPipeline):
    """Measures the processor time of its pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline)
        self.cpu_seconds = 0.0

    def refresh(self, catalog: Catalog, rows: NDArray[np.int64]) -> None:
        began = time.process_time()
        super().refresh(catalog, rows)
        self.cpu_seconds += time.process_time() - began

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        began = time.process_time()
        super().prepare(snapshot, histories, requests)
        self.cpu_seconds += time.process_time() - began

    def rank(self, snapshot: CatalogSnapshot, prepared: PreparedRequest, top_k: int = 0) -> RankResult:
        began = time.process_time()
        result = super().rank(snapshot, prepared, top_k)
        self.cpu_seconds += time.process_time() - began
        return result

    def learn(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], new: Sequence[Sequence[int]], replay_share: float
    ) -> dict[str, float]:
        began = time.process_time()
        losses = super().learn(snapshot, histories, new, replay_share)
        self.cpu_seconds += time.process_time() - began
        return losses


class WithoutDelayed(ComposedPipeline):
    """Does not learn from delayed requests."""

    def rank(self, snapshot: CatalogSnapshot, prepared: PreparedRequest, top_k: int = 0) -> RankResult:
        if prepared.request.delay:
            return NOT_RANKED
        return super().rank(snapshot, prepared, top_k)


class SharedBackbone(ComposedPipeline):
    """A pipeline without a backbone that reads the scores of another one, which must come before it.

    Its ranker must see the backbone's signals.
    """

    def __init__(self, pipeline: RankingPipeline, owner: RankingPipeline) -> None:
        assert pipeline.sequence is None, "the pipeline would replace the scores of its own backbone"
        super().__init__(pipeline)
        self.base, self.owner = pipeline, owner

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        super().prepare(snapshot, histories, requests)
        self.base.backbone = self.owner.backbone


class LearnsOnly(ComposedPipeline):
    """Learns without ranking titles."""

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        """Nothing to encode."""

    def rank(self, *_: object) -> RankResult:
        return NOT_RANKED
