"""Online learning against batch retraining: the same system, retrained from scratch on all earlier events.

The batch variants are retrained every RETRAIN_EVENTS events; in between their weights are frozen. Three variants read
the same stream:

- `online` learns from every micro-batch.
- `retrained` has frozen weights, but shares the stream state: counters, histories and catalog stay current.
- `retrained, frozen counters` also reads a copy of the counters from the last retraining. The catalog and the history
  of the query user stay current, because they come with the request.

A retraining makes a new network and a new ranker. The network trains for E epochs on shuffled windows of all histories
so far. E is the best of EPOCH_CHOICES: trained on the older nine tenths of the events, validated on the newest tenth.
It is chosen again whenever the number of events has doubled. The ranker trains on its examples for as many passes as
the online ranker does. The retrained variant wrote these examples itself while it served. The backbone's score in each
example therefore comes from a network that had not seen the event; a log of served features works the same way.
Examples from before the first network are left out.

Costs are the FLOPs of training, ranker included. They are counted on one step in COUNT_EVERY_STEPS, for online and
batch training alike. The search for E and the ranking that writes the examples are not charged to the batch variants.
"""

import copy
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.text_encoders import Encoder
from infra.data.datasets import Dataset
from infra.experiments.backbone_ranks import BackboneRanks
from infra.experiments.baseline_report import with_baselines
from infra.experiments.batch_retraining import (
    EventHistories,
    FlopEstimator,
    backbone_mrr,
    fit_ranker,
    new_batch_ranker,
    train_network,
    training_windows,
)
from infra.experiments.harness import ScoredEvents, run_prequential
from infra.experiments.prequential import MicroBatch
from infra.experiments.variants import ComposedPipeline
from infra.progress import Reporter
from model.learner import Learner
from model.pipeline import PreparedRequest, RankingPipeline, RankingRequest, RankResult, new_pipeline
from model.settings import LearnerSettings
from model.signals import candidates
from model.signals.inputs import user_query
from model.signals.query_scores import BatchScores
from model.signals.snapshot import CatalogSnapshot, take_snapshot
from model.state.catalog import Catalog
from model.state.stream_state import History, StreamState, TitleMetadata

RETRAIN_EVENTS: Final = 2_000  # between two retrainings
EPOCH_CHOICES: Final = (5, 10, 20)  # numbers of epochs to choose from
MAX_VALIDATION_EVENTS: Final = 2_000  # to choose the number of epochs
ONLINE, RETRAINED, FROZEN_COUNTERS = VARIANTS = "online", "retrained", "retrained, frozen counters"


class Frozen(ComposedPipeline):
    """A pipeline with frozen weights, which only keeps ranker examples for the next retraining."""

    def __init__(self, pipeline: RankingPipeline) -> None:
        super().__init__(pipeline)
        self.base = pipeline

    def learn(self, *_: object) -> dict[str, float]:
        return {}


class FrozenCounters(Frozen):
    """A frozen pipeline that also reads the counters of its last retraining."""

    snapshot: CatalogSnapshot
    text: BatchScores

    def __init__(self, pipeline: RankingPipeline, stream_state: StreamState) -> None:
        super().__init__(pipeline)
        self.stream_state = stream_state  # a copy from the last retraining

    def refresh(self, catalog: Catalog, rows: NDArray[np.int64]) -> None:
        super().refresh(self.stream_state.catalog, self.stream_state.refresh())

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        self.snapshot = take_snapshot(self.stream_state)
        self.text = candidates.text_scores(self.snapshot, [request.history for request in requests])
        super().prepare(self.snapshot, histories, requests)

    def rank(self, snapshot: CatalogSnapshot, prepared: PreparedRequest, top_k: int = 0) -> RankResult:
        request, n = prepared.request, prepared.n
        query = user_query(self.stream_state, request.history, request.now, request.delay)
        user = candidates.user_signals(self.snapshot, query)
        return super().rank(self.snapshot, prepared._replace(user=user, text=self.text[n]), top_k)


class CountedFlops(ComposedPipeline):
    """Counts the training FLOPs of its pipeline."""

    def __init__(self, pipeline: RankingPipeline) -> None:
        super().__init__(pipeline)
        self.base, self.cost = pipeline, FlopEstimator()

    def learn(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], new: Sequence[Sequence[int]], replay_share: float
    ) -> dict[str, float]:
        return self.cost.run(lambda: self.base.learn(snapshot, histories, new, replay_share))


class Variants(NamedTuple):
    """The pipelines of VARIANTS, in this order."""

    online: CountedFlops
    retrained: Frozen
    frozen_counters: FrozenCounters


class RetrainingSchedule:
    """Retrains the frozen pipelines before each micro-batch that is due."""

    def __init__(
        self,
        settings: LearnerSettings,
        variants: Variants,
        stream_state: StreamState,
        progress: Reporter,
        every: int,
    ) -> None:
        self.settings, self.variants, self.stream_state = settings, variants, stream_state
        self.progress, self.every = progress, every
        self.histories, self.cost = EventHistories(), FlopEstimator()
        self.ranker_cost = FlopEstimator()
        self.retrainings: list[dict[str, Any]] = []
        self.epochs = EPOCH_CHOICES[0]

    def __call__(self, done: int, batch: MicroBatch) -> None:
        """Called after `done` events, before `batch` is learned."""
        if done >= (len(self.retrainings) + 1) * self.every:
            self.retrain(done)
        frozen = self.variants.frozen_counters.stream_state
        frozen.launch(item for item in batch if isinstance(item, TitleMetadata))
        self.histories.add(batch)

    def retrain(self, done: int) -> None:
        """Train a new network and new rankers on all events so far."""
        stream_state, limit = self.stream_state, self.settings.sequence.network.max_history
        histories = list(self.histories.histories(stream_state))
        mrr_by_epochs: dict[int, float] = {}
        if (len(self.retrainings) + 1).bit_count() == 1:  # retraining 1, 2, 4, 8, ...
            mrr_by_epochs = self.search_epochs(done, histories, limit)
            self.epochs = max(mrr_by_epochs, key=lambda epochs: mrr_by_epochs[epochs])
        windows = [
            window
            for history, _ in histories
            for window in training_windows(history, range(len(history.rows_L)), limit)
        ]
        model = train_network(self.settings, stream_state, windows, self.epochs, self.cost)
        passes = max(1, round(self.settings.ranker.visits_per_example))
        # Only RETRAINED is charged: the other variant exists for comparison.
        costs = ((self.variants.retrained, self.ranker_cost), (self.variants.frozen_counters, FlopEstimator()))
        for variant, cost in costs:
            ranker = new_batch_ranker(self.settings.ranker, self.settings.seed)
            if self.retrainings:  # examples from before the first network are left out
                fit_ranker(ranker, variant.ranker, passes, cost)
            variant.base.sequence, variant.base.ranker = copy.deepcopy(model), ranker  # each encodes titles of its own
        self.variants.frozen_counters.stream_state = copy.deepcopy(stream_state)
        self.retrainings.append(
            {"events": done, "epochs": self.epochs, "windows": len(windows), "mrr_by_epochs": mrr_by_epochs}
        )
        self.progress.line(
            f"retrained after {done:,} events: {self.epochs} epochs, {len(windows):,} windows {mrr_by_epochs or ''}"
        )

    def search_epochs(
        self, done: int, histories: Sequence[tuple[History, NDArray[np.int64]]], limit: int
    ) -> dict[int, float]:
        """MRR on the newest tenth of the events, by number of training epochs on the others."""
        stream_state, newest = self.stream_state, done - min(done // 10, MAX_VALIDATION_EVENTS)
        cut = [(history, int(np.searchsorted(numbers, newest))) for history, numbers in histories]
        older = [window for history, at in cut for window in training_windows(history.before(at), range(at), limit)]
        newer = [(history, list(range(at, len(history.rows_L)))) for history, at in cut if at < len(history.rows_L)]
        return {
            epochs: backbone_mrr(
                train_network(self.settings, stream_state, older, epochs, FlopEstimator()),
                stream_state,
                newer,
                self.settings.repeats,
            )
            for epochs in EPOCH_CHOICES
        }


def new_variants(settings: LearnerSettings) -> Variants:
    """New pipelines of VARIANTS. The rankers of the batch variants have room for the examples of a retraining."""
    online, retrained, frozen_counters = (new_pipeline(settings) for _ in VARIANTS)
    for pipeline in (retrained, frozen_counters):
        pipeline.ranker = new_batch_ranker(settings.ranker, settings.seed)
    frozen_state = StreamState(settings.stream_state)
    return Variants(CountedFlops(online), Frozen(retrained), FrozenCounters(frozen_counters, frozen_state))


def run(
    data: Dataset, encode: Encoder, settings: LearnerSettings, progress: Reporter, every: int | None = None
) -> dict[str, Any]:
    """Run all variants. Returns metrics, costs and curves. A short stream is retrained more often: there must be two
    retrainings in the first fifth, because the first trained ranker comes with the second."""
    every = every or max(1, min(RETRAIN_EVENTS, len(data) // 10))
    variants = new_variants(settings)
    learner = Learner(settings, dict(zip(VARIANTS, variants, strict=True)))
    schedule = RetrainingSchedule(settings, variants, learner.stream_state, progress, every)
    # The copy of the counters does not know the newest seen titles, so FROZEN_COUNTERS has no backbone-only ranks.
    ranks = BackboneRanks({ONLINE: variants.online.base, RETRAINED: variants.retrained.base}, settings.repeats)
    recorded = run_prequential(data, encode, learner, progress, [ranks], with_baselines=True, before_batch=schedule)
    return report(recorded, len(data), variants.online.cost, schedule)


def report(recorded: ScoredEvents, events: int, online: FlopEstimator, schedule: RetrainingSchedule) -> dict[str, Any]:
    """Metrics and training FLOPs. `tenth_at_events`: the stream length from which on online learning costs a tenth."""
    retrained = schedule.cost.total() + schedule.ranker_cost.total()
    trained_events = sum(retraining["events"] for retraining in schedule.retrainings)
    online_per_event, retrained_per_event = online.total() / max(events, 1), retrained / max(trained_events, 1)
    return {
        "every": schedule.every,
        "retrainings": schedule.retrainings,
        **with_baselines(recorded),
        "gains": [
            {"variant": ONLINE, "reference": other, "gain": recorded.gain(ONLINE, other)} for other in VARIANTS[1:]
        ],
        "flops": {
            ONLINE: online.total(), RETRAINED: retrained, "network": schedule.cost.total(),
            "tenth_at_events": (
                20 * online_per_event * schedule.every / retrained_per_event if retrained_per_event else None
            ),
        },
    }  # fmt: skip
