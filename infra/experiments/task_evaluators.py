"""Measurements of further tasks than the next title: by networks with task heads, and by class-frequency baselines.

Each predicts the probabilities of a task's classes before the event is counted or learned. The metric is the rank of
the true class; if several classes are true, of the most probable of them. These ranks are recorded beside the ranks of
titles (`infra.experiments.harness`), so that both cover the same events.

N requests · K classes of a task · L events of a history
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from infra.experiments.prequential import Measurement
from model.actions import TARGET_WEIGHTS
from model.metrics.ranking import average_rank
from model.pipeline import PreparedRequest, RankingPipeline, RankingRequest, new_pipeline
from model.sequence.model import SequenceModel
from model.sequence.tasks import ACTION, LIKED, TASKS
from model.settings import LearnerSettings
from model.signals.snapshot import CatalogSnapshot
from model.state.stream_state import History

TASK_SEPARATOR: Final = ": "  # between the variant and the task in the recorded name of a task rank
LIKE_PROBABILITY: Final = ": like probability"  # after a variant: the predicted probability of a finish or a like
OVERALL, USER, RECENT_USER = "overall frequencies", "user frequencies", "recent user frequencies"
TITLE_FREQUENCIES, USER_AND_TITLE = "title frequencies", "user x title frequencies"
FREQUENCY_BASELINES: Final = (OVERALL, USER, RECENT_USER, TITLE_FREQUENCIES, USER_AND_TITLE)
NEEDS_TITLE: Final = (TITLE_FREQUENCIES, USER_AND_TITLE)  # only for tasks that are given the title
RECENT_EVENTS: Final = 5  # of a user, for RECENT_USER
PRIOR_EVENTS: Final = 5.0  # weight of the overall frequencies, in events

_WEIGHTS: Final = np.array(TARGET_WEIGHTS)
_LIKED: Final = LIKED.numpy()


def true_classes(
    task: str, snapshot: CatalogSnapshot, row_L: NDArray[np.int64], action_L: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The true classes of events, [L, K]. An unknown title has no genre."""
    genres = snapshot.stream_state.catalog.genres_VG[row_L]
    genres[row_L < 0] = -1
    truth_LK: NDArray[np.bool_] = TASKS[task].targets(torch.from_numpy(action_L), torch.from_numpy(genres)).numpy()
    return truth_LK


def class_rank(probability_K: NDArray[np.floating[Any]], truth_K: NDArray[np.bool_]) -> float:
    """The rank of the most probable true class; NaN if no class is true."""
    if not truth_K.any():
        return float("nan")
    best = int(np.where(truth_K, probability_K, -1).argmax())
    competing_K = np.where(truth_K, -np.inf, probability_K)  # true classes do not compete with each other
    competing_K[best] = probability_K[best]
    return average_rank(competing_K, best)


def _truth(task: str, snapshot: CatalogSnapshot, request: RankingRequest) -> NDArray[np.bool_]:
    truth_K: NDArray[np.bool_] = true_classes(task, snapshot, np.array([request.target]), np.array([request.action]))[0]
    return truth_K


def _task_ranks(
    variant: str, task: str, probability_K: NDArray[np.floating[Any]], truth_K: NDArray[np.bool_]
) -> dict[str, float]:
    """The recorded ranks of one task; for actions, also the probability of a like."""
    ranks = {variant + TASK_SEPARATOR + task: class_rank(probability_K, truth_K)}
    return ranks | ({variant + LIKE_PROBABILITY: float(probability_K[_LIKED].sum())} if task == ACTION else {})


def _missing(variant: str, tasks: Sequence[str]) -> dict[str, float]:
    """The recorded ranks of an event on an unknown title, which is left out of all tasks."""
    names = [variant + TASK_SEPARATOR + task for task in tasks]
    return dict.fromkeys([*names, *([variant + LIKE_PROBABILITY] if ACTION in tasks else [])], float("nan"))


class HeadRanks(Measurement):
    """Ranks the true classes by the task heads of a variant's network."""

    def __init__(self, variant: str, sequence: SequenceModel, tasks: Sequence[str]) -> None:
        super().__init__(_missing(variant, tasks))
        self.variant, self.sequence, self.tasks = variant, sequence, tasks

    def on_prepared(
        self, snapshot: CatalogSnapshot, histories: Sequence[History], requests: Sequence[RankingRequest]
    ) -> None:
        undelayed = [n for n, request in enumerate(requests) if not request.delay]
        window_N, event_N, title_N = (
            np.array([getattr(requests[n], field) for n in undelayed], np.int64)
            for field in ("history_index", "event_index", "target")
        )
        hidden_ND = self.sequence.hidden_before_events(histories, window_N, event_N)
        self.head_index = {n: index for index, n in enumerate(undelayed)}
        self.probability_NK = {task: self.sequence.task_probabilities(task, hidden_ND, title_N) for task in self.tasks}

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> dict[str, float]:
        ranks: dict[str, float] = {}
        for task in self.tasks:
            probability_K = self.probability_NK[task][self.head_index[prepared.n]]
            ranks |= _task_ranks(self.variant, task, probability_K, _truth(task, snapshot, prepared.request))
        return ranks


class FrequencyBaseline(Measurement):
    """Ranks the true classes by the class frequencies so far: overall, or those of the user, the title or both,
    smoothed by PRIOR_EVENTS events of the overall frequencies. It learns by counting."""

    def __init__(self, baseline: str, tasks: Sequence[str]) -> None:
        """`baseline` is one of FREQUENCY_BASELINES."""
        super().__init__(_missing(baseline, tasks))
        self.baseline, self.tasks = baseline, tasks
        self.counts = {task: np.full(TASKS[task].classes, 1e-6) for task in tasks}
        self.by_title: defaultdict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(TASKS[ACTION].classes))

    def on_ranked(self, snapshot: CatalogSnapshot, prepared: PreparedRequest) -> dict[str, float]:
        request, ranks = prepared.request, dict[str, float]()
        for task in self.tasks:
            truth_K = _truth(task, snapshot, request)
            ranks |= _task_ranks(self.baseline, task, self._probabilities(task, snapshot, request), truth_K)
            self.counts[task] += truth_K
            if task == ACTION:
                self.by_title[snapshot.stream_state.catalog.ids[request.target]] += truth_K
        return ranks

    def _probabilities(
        self, task: str, snapshot: CatalogSnapshot, request: RankingRequest
    ) -> NDArray[np.floating[Any]]:
        overall_K: NDArray[np.float64] = self.counts[task] / self.counts[task].sum()
        if self.baseline == OVERALL:
            return overall_K
        if self.baseline == TITLE_FREQUENCIES:
            return self._of_title(snapshot, request, overall_K)
        history = request.history
        events_L = np.flatnonzero(_WEIGHTS[history.actions_L] > 0)[
            -RECENT_EVENTS if self.baseline == RECENT_USER else 0 :
        ]
        truth_LK = true_classes(task, snapshot, history.rows_L[events_L], history.actions_L[events_L])
        user_K = _smoothed(truth_LK.sum(0), overall_K)
        if self.baseline == USER_AND_TITLE:  # naive Bayes: user and title are independent, given the class
            user_K *= self._of_title(snapshot, request, overall_K) / overall_K
            user_K /= user_K.sum()
        return user_K

    def _of_title(
        self, snapshot: CatalogSnapshot, request: RankingRequest, overall_K: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return _smoothed(self.by_title[snapshot.stream_state.catalog.ids[request.target]], overall_K)


def _smoothed(count_K: NDArray[Any], overall_K: NDArray[np.float64]) -> NDArray[np.float64]:
    probability_K: NDArray[np.float64] = (count_K + PRIOR_EVENTS * overall_K) / (count_K.sum() + PRIOR_EVENTS)
    return probability_K


def with_task_heads(
    settings: LearnerSettings, tasks: Sequence[str], title_weight: float, task_weight: float
) -> RankingPipeline:
    """A pipeline with its own backbone, whose loss weights the next title and each task as given."""
    s = settings.sequence
    objective = replace(s.objective, title_weight=title_weight, task_weight=task_weight)
    sequence = replace(s, network=replace(s.network, tasks=tuple(tasks)), objective=objective)
    return new_pipeline(replace(settings, sequence=sequence))
