"""Sums of the measures by ranking and slice, so that a part of a stream is the difference of two looks.

The learner tells, since it began, the sums of MRR, HR@10 and NDCG@10 of itself and of the baselines, each ranked before
it learned from the event. The replayer keeps the same sums of what readers were served. Both become one table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from infra.monitor.scrape import Scrape
from model.metrics.ranking import MEASURES, SLICES, Prequential

RANKINGS: Final = ("full", "served", "popularity", "popularity_recent", "cooccurrence")  # the report's order
SUM: Final = "premiere_prequential_sum"
SCORED: Final = "premiere_prequential_scored"

Table = dict[str, dict[str, dict[str, float | None]]]  # measure -> ranking -> slice -> mean, None where none scored


@dataclass(frozen=True, eq=False)
class Sums:
    """One ranking's sums [measure, slice], and how many events of each slice are in them."""

    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((len(MEASURES), len(SLICES))))
    scored: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(SLICES)))

    def __sub__(self, earlier: "Sums") -> "Sums":
        return Sums(self.total - earlier.total, self.scored - earlier.scored)

    def mean(self, measure: str, name: str) -> float | None:
        """A measure's mean over a slice; None where it holds no event."""
        scored = self.scored[SLICES.index(name)]
        return float(self.total[MEASURES.index(measure), SLICES.index(name)] / scored) if scored > 0 else None


Tally = Mapping[str, Sums]  # by ranking


def of_learner(scrape: Scrape) -> dict[str, Sums]:
    """What the learner tells of itself and of the baselines."""
    scored = np.array([scrape.value(SCORED, slice=name) for name in SLICES])
    rankings = {reading.labels["ranking"] for reading in scrape.find(SUM)}
    return {
        ranking: Sums(
            np.array([[scrape.value(SUM, ranking=ranking, measure=m, slice=s) for s in SLICES] for m in MEASURES]),
            scored,
        )
        for ranking in sorted(rankings)
    }


def of_ranking(ranking: Prequential) -> Sums:
    """The sums behind a ranking's means."""
    report, scored = ranking.report(), ranking.scored()
    total = np.array([[(report[m][s] or 0.0) * scored[s] for s in SLICES] for m in MEASURES])
    return Sums(total, np.array([scored[s] for s in SLICES], np.float64))


def since(now: Tally, earlier: Tally) -> dict[str, Sums]:
    """What was scored since an earlier look; a ranking that was not there then counts from zero."""
    return {ranking: sums - earlier.get(ranking, Sums()) for ranking, sums in now.items()}


def table(tally: Tally) -> Table:
    """The report's shape: `{"mrr": {ranking: {slice: mean}}, "hr10": ..., "ndcg10": ...}`."""
    listed = [name for name in RANKINGS if name in tally]
    return {
        measure: {name: {s: tally[name].mean(measure, s) for s in SLICES} for name in listed} for measure in MEASURES
    }
