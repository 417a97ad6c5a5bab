"""Beyond-accuracy metrics of recommendation lists: coverage, popularity bias, share of lists with a new title.

They reveal a recommender that only repeats the most popular titles. Each list counts with its first `TOP_K` titles.
*Coverage* is the share of all candidates that appear in at least one list. It grows with the number of lists, so
compare it over the same lists only. *Popularity bias* is the mean number of events that a listed title had so far.
*New-title share* is the share of lists that hold a title with fewer than 10 events. Memory is one set of titles, which
the catalog size bounds.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from model.metrics.ranking import NEW_TITLE_EVENTS

TOP_K: Final = 10  # titles of a list that count
BEYOND_ACCURACY_METRICS: Final = ("coverage", "popularity_bias", "new_title_share")


class BeyondAccuracy:
    """Running metrics of one variant's lists."""

    def __init__(self) -> None:
        self.lists = 0
        self._distinct: set[str] = set()
        self._listed = 0  # titles of all lists, repetitions included
        self._events = 0  # events of these titles
        self._lists_with_new_title = 0

    def add(self, titles: Sequence[str], events: Sequence[int]) -> None:
        """Add one list, best title first, with the number of events of each title at that time."""
        top = events[:TOP_K]
        self.lists += 1
        self._distinct.update(titles[:TOP_K])
        self._listed += len(top)
        self._events += sum(top)
        self._lists_with_new_title += any(count < NEW_TITLE_EVENTS for count in top)

    def report(self, candidates: int) -> dict[str, float | None]:
        """`BEYOND_ACCURACY_METRICS`, given the number of candidates; None for a metric with denominator zero."""
        coverage = len(self._distinct), candidates
        popularity_bias = self._events, self._listed
        new_title_share = self._lists_with_new_title, self.lists
        parts = zip(BEYOND_ACCURACY_METRICS, (coverage, popularity_bias, new_title_share), strict=True)
        return {name: part / whole if whole else None for name, (part, whole) in parts}


def beyond_accuracy_report(
    variants: Mapping[str, BeyondAccuracy], candidates: int
) -> dict[str, dict[str, float | None]]:
    """Reports of all variants: `{"coverage": {variant: value}, "popularity_bias": ..., "new_title_share": ...}`."""
    reports = {name: metrics.report(candidates) for name, metrics in variants.items()}
    return {metric: {name: report[metric] for name, report in reports.items()} for metric in BEYOND_ACCURACY_METRICS}
