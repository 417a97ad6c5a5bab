"""Task evaluators: frequency baselines, and the rank of the true class."""

import numpy as np
import pytest

from infra.experiments.harness import run_prequential
from infra.experiments.task_evaluators import LIKE_PROBABILITY, OVERALL, FrequencyBaseline, class_rank
from model.actions import ACTIONS, TARGET_WEIGHTS
from model.learner import Learner
from model.metrics.ranking import average_rank
from model.sequence.tasks import ACTION, GENRE, LIKED
from tests.support.evaluation import SETTINGS, SILENT, genre_cycle, no_text

HIGH, LOW = ACTIONS["rated high"].code, ACTIONS["rated low"].code


def test_frequency_baseline_counts_event_after_predicting_it() -> None:
    data = genre_cycle(96)
    baseline = FrequencyBaseline(OVERALL, [ACTION, GENRE])
    recorded = run_prequential(data, no_text, Learner(SETTINGS), SILENT, [baseline], first=0)
    codes = [HIGH if data.event(k).rating == 4.5 else LOW for k in range(96)]
    counts, ranks, likes = np.full(len(TARGET_WEIGHTS), 1e-6), [], []
    for code in codes:
        ranks.append(average_rank(counts, code))
        likes.append(counts[LIKED.numpy()].sum() / counts.sum())
        counts[code] += 1
    assert recorded.ranks[f"{OVERALL}: {ACTION}"] == ranks
    assert recorded.ranks[OVERALL + LIKE_PROBABILITY] == pytest.approx(likes)


def test_class_rank_is_that_of_the_best_true_class() -> None:
    probability_K = np.array([0.1, 0.4, 0.2, 0.2, 0.1])
    assert class_rank(probability_K, np.array([1, 0, 1, 0, 0], bool)) == 2.5  # the third, which ties with the fourth
    assert class_rank(probability_K, np.array([1, 1, 0, 0, 0], bool)) == 1
    assert class_rank(np.full(5, 0.2), np.array([1, 1, 0, 0, 0], bool)) == 2.5  # the other true class does not compete
    assert np.isnan(class_rank(probability_K, np.zeros(5, bool)))
