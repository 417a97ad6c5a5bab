"""What lists show, whoever they please: a recommender that only repeats the charts must be seen to.

Of each list its first `TOP` titles count. *Coverage*: the share of the candidates that stood in any list at all (it
grows with the number of lists, so compare it over the same ones). *Popularity*: the mean number of events that a shown
title had so far. *With new*: the share of lists that hold a title of fewer than 10 events. Memory is a set of the
titles shown, which the catalogue bounds.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from model.metrics.ranking import NEW_TITLE

TOP: Final = 10
SHOWN: Final = ("coverage", "popularity", "with_new")


class BeyondAccuracy:
    """Running measures of one ranking's lists."""

    def __init__(self) -> None:
        self.lists = 0
        self._shown: set[str] = set()
        self._places = 0
        self._events = 0
        self._with_new = 0

    def add(self, titles: Sequence[str], events: Sequence[int]) -> None:
        """One list, best first, and how many events each of its titles had when it was shown."""
        first = events[:TOP]
        self.lists += 1
        self._shown.update(titles[:TOP])
        self._places += len(first)
        self._events += sum(first)
        self._with_new += any(count < NEW_TITLE for count in first)

    def report(self, candidates: int) -> dict[str, float | None]:
        """`SHOWN`, of so many candidates; None where there is nothing to divide by."""
        parts = (len(self._shown), candidates), (self._events, self._places), (self._with_new, self.lists)
        return {name: part / whole if whole else None for name, (part, whole) in zip(SHOWN, parts, strict=True)}


def table(shown: Mapping[str, BeyondAccuracy], candidates: int) -> dict[str, dict[str, float | None]]:
    """The report's shape: `{"coverage": {ranking: value}, "popularity": ..., "with_new": ...}`."""
    reports = {name: one.report(candidates) for name, one in shown.items()}
    return {measure: {name: report[measure] for name, report in reports.items()} for measure in SHOWN}
