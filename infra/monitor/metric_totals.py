"""Sums of the ranking metrics by variant and slice; a period of the stream is the difference of two snapshots.

The learner exports the sums of MRR, HR@10 and NDCG@10 since its start, for itself and for the baselines, each from
prequential evaluation. The demo keeps the same sums for the served lists. Both go into one table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from infra.monitor.scrape import Scrape
from model.metrics.ranking import RANKING_METRICS, SLICES, PrequentialMetrics

VARIANTS: Final = ("full", "served", "popularity", "popularity_recent", "cooccurrence")  # the report's order
SUM_METRIC: Final = "premiere_prequential_sum_total"
COUNT_METRIC: Final = "premiere_prequential_scored_total"

MeanTable = dict[str, dict[str, dict[str, float | None]]]  # metric -> variant -> slice -> mean; None without events


@dataclass(frozen=True, eq=False)
class MetricSums:
    """The sums of one variant [metric, slice], and the number of scored events of each slice."""

    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(RANKING_METRICS), len(SLICES))))
    scored: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(SLICES)))

    def __sub__(self, earlier: "MetricSums") -> "MetricSums":
        return MetricSums(self.total - earlier.total, self.scored - earlier.scored)

    def mean(self, metric: str, name: str) -> float | None:
        """A metric's mean over the slice `name`; None if the slice has no event."""
        scored = self.scored[SLICES.index(name)]
        return float(self.total[RANKING_METRICS.index(metric), SLICES.index(name)] / scored) if scored > 0 else None


MetricTotals = Mapping[str, MetricSums]  # variant -> its sums


def learner_totals(scrape: Scrape) -> dict[str, MetricSums]:
    """The sums that the learner exports for itself and for the baselines."""
    scored = np.array([scrape.value(COUNT_METRIC, slice=name) for name in SLICES])
    variants = {sample.labels["variant"] for sample in scrape.select(SUM_METRIC)}
    return {
        variant: MetricSums(
            np.array(
                [
                    [scrape.value(SUM_METRIC, variant=variant, metric=m, slice=s) for s in SLICES]
                    for m in RANKING_METRICS
                ]
            ),
            scored,
        )
        for variant in sorted(variants)
    }


def sums_of(metrics: PrequentialMetrics) -> MetricSums:
    """The sums behind the means of prequential metrics."""
    report, scored = metrics.report(), metrics.scored()
    total = np.array([[(report[m][s] or 0.0) * scored[s] for s in SLICES] for m in RANKING_METRICS])
    return MetricSums(total, np.array([scored[s] for s in SLICES], np.float64))


def totals_since(now: MetricTotals, earlier: MetricTotals) -> dict[str, MetricSums]:
    """The sums since an earlier snapshot; a variant that was missing then counts from zero."""
    return {variant: sums - earlier.get(variant, MetricSums()) for variant, sums in now.items()}


def mean_table(totals: MetricTotals) -> MeanTable:
    """The means in the shape of the reports: `{"mrr": {variant: {slice: mean}}, "hr10": ..., "ndcg10": ...}`."""
    variants = [name for name in VARIANTS if name in totals]
    return {
        metric: {name: {s: totals[name].mean(metric, s) for s in SLICES} for name in variants}
        for metric in RANKING_METRICS
    }
