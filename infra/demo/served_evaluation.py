"""Served evaluation: the rank of an event's title in the list that was stored in Redis when the event arrived.

The demo reads the list just before it produces the event, as a client would. A title that is not in the list has rank
infinity and reciprocal rank 0. Slices and the filter of seen titles are those of the prequential evaluation, so that
both can be compared. Counts start with the run, as the learner's do on a new log. Events whose action has weight 0 are
not scored. Beyond-accuracy metrics of the lists are computed too (`model.metrics.beyond_accuracy`).
"""

import math
from collections.abc import Callable, Sequence

from model.actions import TARGET_WEIGHTS
from model.metrics.baselines import Baselines
from model.metrics.beyond_accuracy import TOP_K, BeyondAccuracy
from model.metrics.ranking import PrequentialMetrics
from streaming.records import Event, action_code


class ServedEvaluation:
    """Reads the user's list before each live event, and scores it."""

    def __init__(self, read: Callable[[str], Sequence[str]], *, repeats: bool = False, window: int = 2000) -> None:
        self.ranking = PrequentialMetrics(window)
        self.beyond_accuracy = BeyondAccuracy()
        self._read = read
        self._counts = Baselines(repeats=repeats)  # which titles users have seen, events of users and titles

    def score_and_count(self, event: Event) -> None:
        """Score a live event, then count it."""
        self.score(event)
        self.count(event)

    def score(self, event: Event) -> float | None:
        """Rank of the event's title in the user's list; None if the event is not scored."""
        counts = self._counts
        if counts.has_seen(event.user, event.title) or not TARGET_WEIGHTS[action_code(event)]:
            return None
        listed = self._read(event.user)
        rank = rank_in_list(listed, event.title)
        self.beyond_accuracy.add(listed, [counts.title_events(title) for title in listed[:TOP_K]])
        self.ranking.add(rank, counts.title_events(event.title), counts.user_events(event.user))
        return rank

    def count(self, event: Event) -> None:
        """Count an event: after it was scored, or as part of the backlog."""
        if TARGET_WEIGHTS[action_code(event)]:
            self._counts.count(event.user, event.title, event.ts)


def rank_in_list(served: Sequence[str], title: str) -> float:
    """Rank of `title` in a list, from 1; infinity if it is absent."""
    return served.index(title) + 1 if title in served else math.inf
