"""Ranks become MRR, HR@10 and NDCG@10, on all events and on the slices that tell whether cold starts work.

One accumulator serves the evaluation, the live learner and what readers were served, so that their numbers compare. Of
a rank r (from 1, the average on ties): MRR is the mean of 1/r, HR@10 the share with r <= 10, NDCG@10 the mean of
1/log2(r + 1) where r <= 10 and 0 beyond. A target that is no candidate yet has rank infinity and counts 0 in each.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SLICES: Final = ("all", "new_titles", "unseen_titles", "new_users")
MEASURES: Final = ("mrr", "hr10", "ndcg10")
NEW_TITLE: Final = 10  # a title with fewer events so far is new
NEW_USER: Final = 5  # a user with fewer events so far is new

Report = dict[str, dict[str, float | None]]  # measure -> slice -> value, None where nothing was scored


def average_rank(score_V: NDArray[np.floating[Any]], target: int) -> float:
    """The rank of `target` among the scores, highest first, from 1; the mean of the places that a tie spans.

    Candidates that must not compete are given -inf. A target of -inf or NaN is no candidate: infinity. (Compared as
    they are, NaN would be above everyone: rank 1/2.)
    """
    own = score_V[target]
    if not own > -math.inf:
        return math.inf
    return int(np.count_nonzero(score_V > own)) + (int(np.count_nonzero(score_V == own)) + 1) / 2


def slices_of(title_events: int, user_events: int) -> tuple[bool, bool, bool, bool]:
    """Which of `SLICES` an event is in, from the counts of its title and its user before it."""
    return True, title_events < NEW_TITLE, title_events == 0, user_events < NEW_USER


def measures_of(rank: float) -> tuple[float, float, float]:
    """`MEASURES` of one rank: reciprocal rank, hit in the top 10, discounted gain in the top 10."""
    hit = rank <= 10
    return 1 / rank, float(hit), 1 / math.log2(rank + 1) if hit else 0.0


class Prequential:
    """Running means of one ranking by slice: of everything so far, and of a recent window of scored events."""

    def __init__(self, window: int = 2000) -> None:
        self.window = window  # scored events
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=window)
        self._total = np.zeros((len(MEASURES), len(SLICES)))
        self._count = np.zeros(len(SLICES), np.int64)

    def add(self, rank: float, prior_events_of_title: int, prior_events_of_user: int) -> None:
        """Score one event: the rank its title had, and how often title and user had been seen, before it counted."""
        if not rank >= 1:
            raise ValueError(f"a rank is 1 or more, infinity included, not {rank}")
        self._recent.append((rank, prior_events_of_title, prior_events_of_user))
        inside = np.array(slices_of(prior_events_of_title, prior_events_of_user))
        self._total[:, inside] += np.array(measures_of(rank))[:, None]
        self._count[inside] += 1

    def scored(self) -> dict[str, int]:
        """How many events each slice holds."""
        return dict(zip(SLICES, self._count.tolist(), strict=True))

    def sums(self) -> NDArray[np.float64]:
        """Sums by measure and slice, [M, S]: what two moments are compared by."""
        return self._total.copy()

    def report(self) -> Report:
        """Means over everything so far."""
        return _means(self._total, self._count)

    def recent(self) -> Report:
        """Means over the last `window` scored events, newly summed so that no rounding piles up."""
        rows = [(measures_of(rank), slices_of(titles, users)) for rank, titles, users in self._recent]
        measure_NM = np.array([m for m, _ in rows], np.float64).reshape(-1, len(MEASURES))
        inside_NS = np.array([s for _, s in rows], np.float64).reshape(-1, len(SLICES))
        return _means(measure_NM.T @ inside_NS, inside_NS.sum(0).astype(np.int64))

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides later reports, as plain lists and numbers."""
        recent = [list(row) for row in self._recent]
        return {"window": self.window, "recent": recent, "total": self._total.tolist(), "count": self._count.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.window = state["window"]
        self._recent = deque(((rank, titles, users) for rank, titles, users in state["recent"]), maxlen=self.window)
        self._total = np.array(state["total"], np.float64)
        self._count = np.array(state["count"], np.int64)


def _means(total_MS: NDArray[np.float64], count_S: NDArray[np.int64]) -> Report:
    mean_MS = [
        [total / count if count else None for total, count in zip(row, count_S, strict=True)] for row in total_MS
    ]
    return {
        measure: {name: None if mean is None else float(mean) for name, mean in zip(SLICES, means, strict=True)}
        for measure, means in zip(MEASURES, mean_MS, strict=True)
    }


def table(rankings: Mapping[str, Prequential]) -> dict[str, Report]:
    """The reports' shape, `{"mrr": {ranking: {slice: value}}, "hr10": ..., "ndcg10": ...}`: a contract with scripts."""
    reports = {name: ranking.report() for name, ranking in rankings.items()}
    return {measure: {name: report[measure] for name, report in reports.items()} for measure in MEASURES}
