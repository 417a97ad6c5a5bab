"""Served evaluation: the rank of an event's title in the list that was stored in Redis when the event arrived.

The demo reads the list just before it produces the event, as a client would. A title that is not in the list has rank
infinity and reciprocal rank 0. Slices and the filter of seen titles are those of the prequential evaluation, so that
both can be compared. Counts start with the run, as the learner's do on a new log. Events whose action has weight 0 are
not scored. Beyond-accuracy metrics of the lists are computed too (`model.metrics.beyond_accuracy`).
"""

import math
from collections.abc import Callable, Sequence

from model.actions import TARGET_WEIGHTS
from model.metrics.beyond_accuracy import TOP_K, BeyondAccuracy
from model.metrics.ranking import PrequentialMetrics
from streaming.records import Event, action_code


class ServedEvaluation:
    """Reads the user's list before each live event, and scores it."""

    def __init__(self, read: Callable[[str], Sequence[str]], *, repeats: bool = False, window: int = 2000) -> None:
        self.ranking = PrequentialMetrics(window)
        self.beyond_accuracy = BeyondAccuracy()
        self._read, self._repeats = read, repeats
        self._seen: dict[str, set[str]] = {}  # user -> titles
        self._user_events: dict[str, int] = {}
        self._title_events: dict[str, int] = {}

    def score_and_count(self, event: Event) -> None:
        """Score a live event, then count it."""
        self.score(event)
        self.count(event)

    def score(self, event: Event) -> float | None:
        """Rank of the event's title in the user's list; None if the event is not scored."""
        seen = not self._repeats and event.title in self._seen.get(event.user, ())
        if seen or not TARGET_WEIGHTS[action_code(event)]:
            return None
        listed = self._read(event.user)
        rank = rank_in_list(listed, event.title)
        self.beyond_accuracy.add(listed, [self._title_events.get(title, 0) for title in listed[:TOP_K]])
        self.ranking.add(rank, self._title_events.get(event.title, 0), self._user_events.get(event.user, 0))
        return rank

    def count(self, event: Event) -> None:
        """Count an event: after it was scored, or as part of the backlog."""
        if TARGET_WEIGHTS[action_code(event)]:
            self._seen.setdefault(event.user, set()).add(event.title)
            self._user_events[event.user] = self._user_events.get(event.user, 0) + 1
            self._title_events[event.title] = self._title_events.get(event.title, 0) + 1


def rank_in_list(served: Sequence[str], title: str) -> float:
    """Rank of `title` in a list, from 1; infinity if it is absent."""
    return served.index(title) + 1 if title in served else math.inf
