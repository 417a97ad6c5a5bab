"""MRR, HR@10 and NDCG@10 of hand-computed examples; the comments show the arithmetic."""

import math

import numpy as np
import pytest

from model.metrics.ranking import PrequentialMetrics, average_rank, ranking_metrics

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("rank", "reciprocal", "hit", "gain"),
    [
        (1, 1.0, 1.0, 1.0),  # 1/1; 1 <= 10; 1/log2(2) = 1/1
        (2, 0.5, 1.0, 0.6309297536),  # 1/2; 1/log2(3) = 1/1.5849625007
        (3, 0.3333333333, 1.0, 0.5),  # 1/3; 1/log2(4) = 1/2
        (10, 0.1, 1.0, 0.2890648263),  # 1/10; the last rank that is a hit; 1/log2(11) = 1/3.4594316186
        (11, 0.0909090909, 0.0, 0.0),  # 1/11; after rank 10 there is no hit and no gain
        (1.5, 0.6666666667, 1.0, 0.7564707974),  # a tie for ranks 1 and 2; 1/log2(2.5) = 1/1.3219280949
        (10.5, 0.0952380952, 0.0, 0.0),  # a tie for ranks 10 and 11: 1/10.5 = 2/21, and 10.5 > 10
        (INF, 0.0, 0.0, 0.0),  # not a candidate
    ],
)
def test_reciprocal_rank_hit_and_gain_of_one_rank(rank: float, reciprocal: float, hit: float, gain: float) -> None:
    assert ranking_metrics(rank) == pytest.approx((reciprocal, hit, gain), abs=1e-10)


@pytest.mark.parametrize(
    ("scores", "target", "rank"),
    [
        ([0.1, 0.9, 0.5], 1, 1),
        ([0.1, 0.9, 0.5], 2, 2),
        ([0.1, 0.9, 0.5], 0, 3),
        ([3, 1, 3, 2, 3], 0, 2),  # three titles tie for ranks 1, 2 and 3: (1 + 2 + 3) / 3
        ([3, 1, 3, 2, 3], 3, 4),  # three titles score higher
        ([3, 1, 3, 2, 3], 1, 5),
        ([2, 2], 1, 1.5),  # (1 + 2) / 2
        ([5, 5, 5, 5], 2, 2.5),  # all titles tie: (1 + 2 + 3 + 4) / 4
        ([-INF, 1, -INF, 2], 1, 2),  # an excluded title has score -inf and no rank
        ([-INF, 1], 0, INF),  # the target is not a candidate
        ([NAN, 1], 0, INF),
    ],
)
def test_tied_titles_get_their_average_rank(scores: list[float], target: int, rank: float) -> None:
    assert average_rank(np.array(scores), target) == rank


def test_prequential_means_over_all_events() -> None:
    metrics = PrequentialMetrics()
    for rank in (1, 2, 3, 10, 11):
        metrics.add(rank, 100, 100)
    report = metrics.report()
    assert report["mrr"]["all"] == pytest.approx(0.4048484848)  # (1 + 0.5 + 0.3333333333 + 0.1 + 0.0909090909) / 5
    assert report["hr10"]["all"] == pytest.approx(0.8)  # 4 of 5
    assert report["ndcg10"]["all"] == pytest.approx(0.4839989160)  # (1 + 0.6309297536 + 0.5 + 0.2890648263 + 0) / 5
    assert metrics.scored() == {"all": 5, "new_titles": 0, "unseen_titles": 0, "new_users": 0}
    assert report["mrr"]["new_titles"] is None  # a slice without events has no mean


def four_events(window: int = 2000) -> PrequentialMetrics:
    """Metrics of four events, added as rank, earlier events of the title, earlier events of the user."""
    metrics = PrequentialMetrics(window)
    metrics.add(1, 0, 0)  # an unseen title and a new user
    metrics.add(2, 9, 5)  # 9 events: still a new title; 5 events: no longer a new user
    metrics.add(4, 10, 4)  # 10 events: no longer a new title; 4 events: still a new user
    metrics.add(11, 50, 50)  # neither
    return metrics


def test_prequential_means_by_slice() -> None:
    metrics = four_events()
    assert metrics.scored() == {"all": 4, "new_titles": 2, "unseen_titles": 1, "new_users": 2}
    report = metrics.report()
    # Reciprocal ranks are 1, 1/2, 1/4 and 1/11.
    assert report["mrr"] == pytest.approx(
        {
            "all": 0.4602272727,  # (1 + 0.5 + 0.25 + 0.0909090909) / 4
            "new_titles": 0.75,  # (1 + 0.5) / 2
            "unseen_titles": 1.0,
            "new_users": 0.625,  # (1 + 0.25) / 2
        }
    )
    assert report["hr10"] == {"all": 0.75, "new_titles": 1.0, "unseen_titles": 1.0, "new_users": 1.0}
    # Gains are 1, 1/log2(3) = 0.6309297536, 1/log2(5) = 1/2.3219280949 = 0.4306765581 and 0.
    assert report["ndcg10"] == pytest.approx(
        {
            "all": 0.5154015779,  # 2.0616063117 / 4
            "new_titles": 0.8154648768,  # 1.6309297536 / 2
            "unseen_titles": 1.0,
            "new_users": 0.7153382790,  # 1.4306765581 / 2
        }
    )


def test_recent_means_cover_the_window() -> None:
    recent = four_events(window=2).recent()  # ranks 4 and 11
    assert recent["mrr"]["all"] == pytest.approx(0.1704545455)  # (0.25 + 0.0909090909) / 2
    assert recent["hr10"]["all"] == 0.5
    assert recent["ndcg10"]["all"] == pytest.approx(0.2153382790)  # 0.4306765581 / 2
    assert recent["mrr"]["new_users"] == 0.25
    assert recent["mrr"]["new_titles"] is None


@pytest.mark.parametrize("rank", [0.5, 0, -1, NAN])
def test_rank_below_one_is_rejected(rank: float) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PrequentialMetrics().add(rank, 0, 0)
