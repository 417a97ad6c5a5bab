"""Who is asked further tasks than the next title: networks with heads, and simple ways that count.

Each says how likely a task's classes are, before the event is counted or learned, and is told apart by the rank of the
true one; of several that are true, the best placed. What it is told goes beside the rankings of titles
(`infra.experiments.harness`), so that both are of the same events.

N questions · K classes of a task · L events of a history
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from infra.experiments.harness import Instrumented
from model.actions import WEIGHTS
from model.learner import LearnerSettings, new_pipeline
from model.metrics.ranking import average_rank
from model.pipeline import RankingPipeline, RankingRequest, RankResult
from model.sequence.tasks import ACTION, LIKED, TASKS
from model.signals.candidates import CatalogSnapshot
from model.signals.ranker import Ranker
from model.state.stream_state import History

OF: Final = ": "  # between a contender's name and the task that a rank is of
LIKING: Final = ": liking"  # after a contender's name: how likely it takes the viewer to finish or like the title
FREQUENT, VIEWER, RECENT = "class frequencies", "the viewer's own", "the viewer's last"
TITLE, BOTH = "the title's own", "viewer's and title's"
SIMPLE: Final = (FREQUENT, VIEWER, RECENT, TITLE, BOTH)
TITLED: Final = (TITLE, BOTH)  # they say something only where the title is given
LAST: Final = 5  # events
PRIOR: Final = 5.0  # events that the frequencies of all count as, beside one's own

_WEIGHTS: Final = np.array(WEIGHTS)
_LIKED: Final = LIKED.numpy()


def true_classes(
    task: str, snapshot: CatalogSnapshot, row_L: NDArray[np.int64], action_L: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which classes are true of events, [L, K]; of a title that is not known, no genre."""
    genres = snapshot.stream_state.catalog.genres_VG[row_L]
    genres[row_L < 0] = -1
    truth_LK: NDArray[np.bool_] = TASKS[task].truth(torch.from_numpy(action_L), torch.from_numpy(genres)).numpy()
    return truth_LK


def class_rank(likely_K: NDArray[np.floating[Any]], truth_K: NDArray[np.bool_]) -> float:
    """The rank of the likeliest class that is true; NaN where none is."""
    if not truth_K.any():
        return float("nan")
    best = int(np.where(truth_K, likely_K, -1).argmax())
    rivals_K = np.where(truth_K, -np.inf, likely_K)  # true ones do not compete with each other
    rivals_K[best] = likely_K[best]
    return average_rank(rivals_K, best)


class TaskEvaluator(Instrumented, ABC):
    """`lists`: whether it ranks titles too; else it stands by the first of its tasks."""

    tasks: Sequence[str]
    lists: bool
    answers: list[dict[str, float]]  # of this micro-batch's events

    @abstractmethod
    def likely(
        self, task: str, snapshot: CatalogSnapshot, request: RankingRequest, n: int
    ) -> NDArray[np.floating[Any]]:
        """How likely each class is, before the event."""

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        self.answers, self.alone = [], []
        if self.lists:
            super().prepare(snapshot, histories, requests)

    def rank(self, snapshot: CatalogSnapshot, request: RankingRequest, n: int, *rest: Any, **named: Any) -> RankResult:
        found = (
            super().rank(snapshot, request, n, *rest, **named) if self.lists else RankResult(0.0, np.zeros(0, np.int64))
        )
        if request.delay:
            return found
        answer: dict[str, float] = {}
        for task in self.tasks:
            likely_K = self.likely(task, snapshot, request, n)
            answer[OF + task] = class_rank(likely_K, _truth(task, snapshot, request))
            if task == ACTION:
                answer[LIKING] = float(likely_K[_LIKED].sum())
        self.answers.append(answer)
        return found if self.lists else RankResult(answer[OF + self.tasks[0]], found.best_T)

    def told(self, place: int) -> dict[str, float]:
        return super().told(place) | self.answers[place]


def _truth(task: str, snapshot: CatalogSnapshot, request: RankingRequest) -> NDArray[np.bool_]:
    truth_K: NDArray[np.bool_] = true_classes(task, snapshot, np.array([request.target]), np.array([request.action]))[0]
    return truth_K


class Heads(TaskEvaluator):
    """A network with heads answers."""

    def prepare(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        super().prepare(snapshot, histories, requests)
        assert self.sequence is not None
        if not self.lists:
            self.sequence.refresh(snapshot.stream_state.catalog)
        fresh = [n for n, request in enumerate(requests) if not request.delay]
        window_N, event_N, title_N = (
            np.array([getattr(requests[n], of) for n in fresh], np.int64)
            for of in ("history_index", "event_index", "target")
        )
        hidden_ND = self.sequence.before_events(histories, window_N, event_N)
        self.place = {n: place for place, n in enumerate(fresh)}
        self.likely_NK = {task: self.sequence.classes(task, hidden_ND, title_N) for task in self.tasks}

    def likely(
        self, task: str, snapshot: CatalogSnapshot, request: RankingRequest, n: int
    ) -> NDArray[np.floating[Any]]:
        likely_K: NDArray[np.float32] = self.likely_NK[task][self.place[n]]
        return likely_K


class Simple(TaskEvaluator):
    """Frequencies of the classes so far: of all, or of whom the way names, with those of all as PRIOR events."""

    way: str
    counts: dict[str, NDArray[np.float64]]  # by task, of all
    by_title: defaultdict[str, NDArray[np.float64]]  # of actions

    def rank(self, snapshot: CatalogSnapshot, request: RankingRequest, n: int, *rest: Any, **named: Any) -> RankResult:
        found = super().rank(snapshot, request, n, *rest, **named)
        if not request.delay:
            for task in self.tasks:
                truth_K = _truth(task, snapshot, request)
                self.counts[task] += truth_K
                if task == ACTION:
                    self.by_title[snapshot.stream_state.catalog.ids[request.target]] += truth_K
        return found

    def likely(
        self, task: str, snapshot: CatalogSnapshot, request: RankingRequest, n: int
    ) -> NDArray[np.floating[Any]]:
        all_K: NDArray[np.float64] = self.counts[task] / self.counts[task].sum()
        if self.way == FREQUENT:
            return all_K
        if self.way == TITLE:
            return self._of_title(snapshot, request, all_K)
        history = request.history
        events_L = np.flatnonzero(_WEIGHTS[history.actions_L] > 0)[-LAST if self.way == RECENT else 0 :]
        own_LK = true_classes(task, snapshot, history.rows_L[events_L], history.actions_L[events_L])
        viewer_K = _beside(own_LK.sum(0), all_K)
        if self.way == BOTH:  # as if viewer and title were independent, given the class
            viewer_K *= self._of_title(snapshot, request, all_K) / all_K
            viewer_K /= viewer_K.sum()
        return viewer_K

    def _of_title(
        self, snapshot: CatalogSnapshot, request: RankingRequest, all_K: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return _beside(self.by_title[snapshot.stream_state.catalog.ids[request.target]], all_K)


def _beside(own_K: NDArray[Any], all_K: NDArray[np.float64]) -> NDArray[np.float64]:
    shares_K: NDArray[np.float64] = (own_K + PRIOR * all_K) / (own_K.sum() + PRIOR)
    return shares_K


def simple(settings: LearnerSettings, way: str, tasks: Sequence[str]) -> Simple:
    """One of SIMPLE; it has no gradients and learns by counting."""
    made = Simple.of(RankingPipeline(Ranker(replace(settings.ranker, buffer=1)), None, learns=False), settings.repeats)
    made.way, made.tasks, made.lists = way, tasks, False
    made.counts = {task: np.full(TASKS[task].classes, 1e-6) for task in tasks}
    made.by_title = defaultdict(lambda: np.zeros(TASKS[ACTION].classes))
    return made


def with_heads(
    settings: LearnerSettings, tasks: Sequence[str], title_weight: float, task_weight: float, lists: bool
) -> Heads:
    """A backbone of its own, trained on the title by so much and on each task by so much."""
    s = settings.sequence
    objective = replace(s.objective, title_weight=title_weight, task_weight=task_weight)
    sequence = replace(s, network=replace(s.network, tasks=tuple(tasks)), objective=objective)
    ranker = settings.ranker if lists else replace(settings.ranker, buffer=1)
    made = Heads.of(new_pipeline(replace(settings, sequence=sequence, ranker=ranker)), settings.repeats)
    made.tasks, made.lists = tasks, lists
    return made
