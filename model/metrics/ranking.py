"""MRR, HR@10 and NDCG@10 of ranked events, over all events and over the cold-start slices.

The offline evaluation, the live learner and the served evaluation share one accumulator, so their numbers are
comparable. A rank r starts at 1 and is the average rank on ties. MRR is the mean of 1/r. HR@10 is the share of events
with r <= 10. NDCG@10 is the mean of 1/log2(r + 1) where r <= 10 and 0 elsewhere. A target that is not a candidate has
rank infinity and scores 0 in each metric.

N events
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SLICES: Final = ("all", "new_titles", "unseen_titles", "new_users")
RANKING_METRICS: Final = ("mrr", "hr10", "ndcg10")
NEW_TITLE_EVENTS: Final = 10  # a title with fewer events so far is new
NEW_USER_EVENTS: Final = 5  # a user with fewer events so far is new

MetricReport = dict[str, dict[str, float | None]]  # metric -> slice -> mean; None if no event was scored


def average_rank(score_V: NDArray[np.floating[Any]], target: int) -> float:
    """The rank of `target` by descending score, starting at 1; ties get the mean of their ranks.

    A score of -inf excludes a title. A target that scores -inf or NaN is not a candidate and has rank infinity. Without
    that check a NaN, which compares false with everything, would get rank 1/2.
    """
    target_score = score_V[target]
    if not target_score > -math.inf:
        return math.inf
    higher = int(np.count_nonzero(score_V > target_score))
    return higher + (int(np.count_nonzero(score_V == target_score)) + 1) / 2


def slice_membership(title_events: int, user_events: int) -> tuple[bool, bool, bool, bool]:
    """Whether an event belongs to each of `SLICES`, from its title's and user's event counts before it."""
    return True, title_events < NEW_TITLE_EVENTS, title_events == 0, user_events < NEW_USER_EVENTS


def ranking_metrics(rank: float) -> tuple[float, float, float]:
    """`RANKING_METRICS` of one rank: reciprocal rank, hit in the top 10, discounted gain in the top 10."""
    hit = rank <= 10
    return 1 / rank, float(hit), 1 / math.log2(rank + 1) if hit else 0.0


class PrequentialMetrics:
    """Running means of one variant's metrics by slice, over all scored events and over a recent window."""

    def __init__(self, window: int = 2000) -> None:
        self.window = window  # scored events
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=window)
        self._total = np.zeros((len(RANKING_METRICS), len(SLICES)))
        self._count = np.zeros(len(SLICES), np.int64)

    def add(self, rank: float, title_events: int, user_events: int) -> None:
        """Add one event: its title's rank, and the event counts of title and user before it.

        Raises ValueError if the rank is below 1 or NaN.
        """
        if not rank >= 1:
            raise ValueError(f"a rank must be at least 1 (infinity is allowed), not {rank}")
        self._recent.append((rank, title_events, user_events))
        in_slice = np.array(slice_membership(title_events, user_events))
        self._total[:, in_slice] += np.array(ranking_metrics(rank))[:, None]
        self._count[in_slice] += 1

    def scored(self) -> dict[str, int]:
        """Number of scored events by slice."""
        return dict(zip(SLICES, self._count.tolist(), strict=True))

    def sums(self) -> NDArray[np.float64]:
        """Metric sums, [metric, slice]. The difference of two snapshots gives the means of the events between."""
        return self._total.copy()

    def report(self) -> MetricReport:
        """Means over all scored events."""
        return _means(self._total, self._count)

    def recent(self) -> MetricReport:
        """Means over the last `window` scored events, summed from scratch so that rounding errors do not accumulate."""
        rows = [(ranking_metrics(rank), slice_membership(titles, users)) for rank, titles, users in self._recent]
        metric_N3 = np.array([metrics for metrics, _ in rows], np.float64).reshape(-1, len(RANKING_METRICS))
        in_slice_N4 = np.array([slices for _, slices in rows], np.float64).reshape(-1, len(SLICES))
        return _means(metric_N3.T @ in_slice_N4, in_slice_N4.sum(0).astype(np.int64))

    def recent_reciprocal_ranks(self, events: int) -> NDArray[np.float64]:
        """1 / rank of the last `events` scored events, fewer at the start, oldest first."""
        recent = list(self._recent)[-events:]
        return 1 / np.array([rank for rank, _, _ in recent], np.float64)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later reports depend on, as plain lists and numbers."""
        recent = [list(row) for row in self._recent]
        return {"window": self.window, "recent": recent, "total": self._total.tolist(), "count": self._count.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.window = state["window"]
        self._recent = deque(((rank, titles, users) for rank, titles, users in state["recent"]), maxlen=self.window)
        self._total = np.array(state["total"], np.float64)
        self._count = np.array(state["count"], np.int64)


def _means(total: NDArray[np.float64], count: NDArray[np.int64]) -> MetricReport:
    """Means from sums [metric, slice] and event counts [slice]."""
    return {
        metric: {name: float(s / n) if n else None for name, s, n in zip(SLICES, sums, count, strict=True)}
        for metric, sums in zip(RANKING_METRICS, total, strict=True)
    }


def ranking_report(variants: Mapping[str, PrequentialMetrics]) -> dict[str, MetricReport]:
    """Reports of all variants, `{"mrr": {variant: {slice: mean}}, "hr10": ..., "ndcg10": ...}`.

    The shape is a contract with scripts that read the JSON reports.
    """
    reports = {name: metrics.report() for name, metrics in variants.items()}
    return {metric: {name: report[metric] for name, report in reports.items()} for metric in RANKING_METRICS}
