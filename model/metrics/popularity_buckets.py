"""How well titles are ranked by their age in events: from those that nobody has watched to the well known.

One number over all events hides a cold start: most events fall on titles that everybody knows. The borders are those of
the cold-start tables in arXiv 2605.23312 as others tell them, read as half-open: 0, 1 to 4, 5 to 19, 20 and more.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.metrics.ranking import measures_of

BUCKETS: Final = ("0", "1-4", "5-19", "20+")
_BORDERS: Final = (1, 5, 20)
MEASURES: Final = ("mrr", "hr10")


def bucket_of(events_N: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Places in AGES of titles with so many events."""
    return np.searchsorted(_BORDERS, events_N, "right").astype(np.int64)


class ByPopularity:
    """Running means of one ranking."""

    def __init__(self) -> None:
        self._total = np.zeros((len(MEASURES), len(BUCKETS)))
        self._count = np.zeros(len(BUCKETS), np.int64)

    def add(self, rank: float, title_events: int) -> None:
        """Score one event: the rank its title had, and the events of that title before it."""
        age = int(bucket_of(np.array(title_events)))
        self._total[:, age] += measures_of(rank)[: len(MEASURES)]
        self._count[age] += 1

    def scored(self) -> dict[str, int]:
        """Events of each age."""
        return dict(zip(BUCKETS, self._count.tolist(), strict=True))

    def report(self) -> dict[str, dict[str, float | None]]:
        """Measure, then age; None where nothing was scored."""
        return {
            measure: {
                age: float(total / count) if count else None
                for age, total, count in zip(BUCKETS, self._total[m], self._count, strict=True)
            }
            for m, measure in enumerate(MEASURES)
        }


def table(rankings: Mapping[str, ByPopularity]) -> dict[str, Any]:
    """The report's shape: `{"scored": {age: events}, "mrr": {ranking: {age: value}}, "hr10": ...}`."""
    first, reports = next(iter(rankings.values())), {name: one.report() for name, one in rankings.items()}
    by_measure = {measure: {name: report[measure] for name, report in reports.items()} for measure in MEASURES}
    return {"scored": first.scored(), **by_measure}
