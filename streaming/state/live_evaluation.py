"""The prequential evaluation of the live model: metrics of the model and of the baselines on the same events.

The state is a function of the learner log. `popularity_recent` is the baseline of the window that had the highest MRR
in the previous evaluation window (`model.metrics.recent_window`).
"""

from collections.abc import Mapping
from typing import Any, Final

from model.learner import RankedEvent
from model.metrics.baselines import Baselines
from model.metrics.ranking import PrequentialMetrics
from model.metrics.recent_window import BestRecentWindow

LIVE_BASELINES: Final = ("popularity", "popularity_recent", "cooccurrence")
LIVE_VARIANTS: Final = ("full", *LIVE_BASELINES)


class LiveEvaluation:
    """Scores each event that the learner ranked, then lets the baselines count the events that it learns."""

    def __init__(self, repeats: bool) -> None:
        self.baselines, self.recent_window = Baselines(repeats=repeats), BestRecentWindow()
        self.rankings = {name: PrequentialMetrics() for name in LIVE_VARIANTS}
        self.unknown_title_events = 0  # scored events whose title was not a candidate

    def set_candidate(self, title: str, is_candidate: bool) -> None:
        """Make `title` a candidate of the baselines, or withdraw it."""
        (self.baselines.launch if is_candidate else self.baselines.withdraw)(title)

    def add(self, event: RankedEvent) -> float | None:
        """Score and count one event of the learner; returns the model's rank, or None if the event is not scored."""
        rank = self._score(event)
        if event.is_learned:  # an invented id must not take a row of the baselines either
            self.baselines.count(event.user, event.title, event.ts)
        return rank

    def _score(self, event: RankedEvent) -> float | None:
        # Every list leaves out seen titles, so an event with a seen title cannot be a target.
        if not event.ranks or self.baselines.has_seen(event.user, event.title):
            return None
        by_baseline = self.baselines.rank(event.user, event.title, event.ts)
        rank = event.ranks["full"]
        ranks = {**by_baseline, "full": rank, "popularity_recent": by_baseline[self.recent_window.name]}
        for name, ranking in self.rankings.items():
            ranking.add(ranks[name], event.title_events, event.user_events)
        self.recent_window.add(by_baseline)
        self.unknown_title_events += rank == float("inf")
        return rank

    def state_dict(self) -> dict[str, Any]:
        """Everything that later results depend on."""
        return {
            "baselines": self.baselines.state_dict(),
            "recent_window": self.recent_window.state_dict(),
            "rankings": {name: ranking.state_dict() for name, ranking in self.rankings.items()},
            "unknown_title_events": self.unknown_title_events,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.baselines.load_state_dict(state["baselines"])
        self.recent_window.load_state_dict(state["recent_window"])
        for name, ranking in self.rankings.items():
            ranking.load_state_dict(state["rankings"][name])
        self.unknown_title_events = state["unknown_title_events"]
