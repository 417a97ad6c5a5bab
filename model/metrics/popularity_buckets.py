"""Ranking metrics by popularity bucket: the number of events that the target title had before the event.

A single mean over all events hides cold-start quality, because most events fall on popular titles. The bucket borders
are those of the cold-start tables in arXiv 2605.23312, as cited by secondary sources and read as half-open: 0, 1 to 4,
5 to 19, 20 and more.

N titles
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.metrics.ranking import RANKING_METRICS, ranking_metrics

POPULARITY_BUCKETS: Final = ("0", "1-4", "5-19", "20+")
_BORDERS: Final = (1, 5, 20)
BUCKET_METRICS: Final = RANKING_METRICS[:2]


def popularity_bucket(events_N: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Indices into POPULARITY_BUCKETS of titles with these event counts."""
    return np.searchsorted(_BORDERS, events_N, "right").astype(np.int64)


class ByPopularity:
    """Running means of one variant's metrics by popularity bucket."""

    def __init__(self) -> None:
        self._total = np.zeros((len(BUCKET_METRICS), len(POPULARITY_BUCKETS)))
        self._count = np.zeros(len(POPULARITY_BUCKETS), np.int64)

    def add(self, rank: float, title_events: int) -> None:
        """Add one event: its title's rank, and the title's event count before it."""
        bucket = int(popularity_bucket(np.array(title_events)))
        self._total[:, bucket] += ranking_metrics(rank)[: len(BUCKET_METRICS)]
        self._count[bucket] += 1

    def scored(self) -> dict[str, int]:
        """Number of scored events by bucket."""
        return dict(zip(POPULARITY_BUCKETS, self._count.tolist(), strict=True))

    def report(self) -> dict[str, dict[str, float | None]]:
        """`{metric: {bucket: mean}}`; None for a bucket without a scored event."""
        return {
            metric: {
                bucket: float(total / count) if count else None
                for bucket, total, count in zip(POPULARITY_BUCKETS, totals, self._count, strict=True)
            }
            for metric, totals in zip(BUCKET_METRICS, self._total, strict=True)
        }


def popularity_report(variants: Mapping[str, ByPopularity]) -> dict[str, Any]:
    """Reports of all variants: `{"scored": {bucket: events}, "mrr": {variant: {bucket: mean}}, "hr10": ...}`."""
    first, reports = next(iter(variants.values())), {name: metrics.report() for name, metrics in variants.items()}
    by_metric = {metric: {name: report[metric] for name, report in reports.items()} for metric in BUCKET_METRICS}
    return {"scored": first.scored(), **by_metric}
