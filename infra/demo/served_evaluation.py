"""What readers were served: the rank of the title that a viewer turned to, in the list that lay in Redis before it.

The replayer asks just before it produces an event, as a client would. A title that the list does not hold has rank
infinity and counts 0. Slices and the seen filter are those of the prequential ranking, so that both stand side by side;
counts begin with the replay, as the learner's do on a new log. Events whose action is no target are not scored. What
the lists show is measured too, whatever the viewer turned to (`model.metrics.beyond_accuracy`).
"""

import math
from collections.abc import Callable, Sequence

from model.actions import WEIGHTS
from model.metrics.beyond_accuracy import TOP, BeyondAccuracy
from model.metrics.ranking import Prequential
from streaming.records import Event, action_code


class Served:
    """Reads a viewer's list before each event of the live part, and scores it."""

    def __init__(self, read: Callable[[str], Sequence[str]], *, repeats: bool = False, window: int = 2000) -> None:
        self.ranking = Prequential(window)
        self.exposure = BeyondAccuracy()
        self._read, self._repeats = read, repeats
        self._seen: dict[str, set[str]] = {}  # user -> titles
        self._user_events: dict[str, int] = {}
        self._title_events: dict[str, int] = {}

    def watch(self, event: Event) -> None:
        """Score an event of the live part, then count it."""
        self.score(event)
        self.count(event)

    def score(self, event: Event) -> float | None:
        """The rank of the event's title in what its viewer was served; None where the event is not scored."""
        seen = not self._repeats and event.title in self._seen.get(event.user, ())
        if seen or not WEIGHTS[action_code(event)]:
            return None
        listed = self._read(event.user)
        rank = rank_in(listed, event.title)
        self.exposure.add(listed, [self._title_events.get(title, 0) for title in listed[:TOP]])
        self.ranking.add(rank, self._title_events.get(event.title, 0), self._user_events.get(event.user, 0))
        return rank

    def count(self, event: Event) -> None:
        """Take note of an event, after it was scored or because it is history."""
        if WEIGHTS[action_code(event)]:
            self._seen.setdefault(event.user, set()).add(event.title)
            self._user_events[event.user] = self._user_events.get(event.user, 0) + 1
            self._title_events[event.title] = self._title_events.get(event.title, 0) + 1


def rank_in(served: Sequence[str], title: str) -> float:
    """The place of `title` in a list, from 1; infinity where it is absent."""
    return served.index(title) + 1 if title in served else math.inf
