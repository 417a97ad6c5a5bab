"""Confidence intervals from a cluster bootstrap over users, also for paired differences between two variants.

Events of one user are correlated, so they are not independent samples. The bootstrap therefore resamples whole users
with replacement. The statistic is a mean over events: in each resample, the sum of the drawn users' values divided by
the number of their events. With few users the interval is wide, however many events there are.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.

N events · U users; only here: D bootstrap resamples · K values of an event
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES: Final = 2000
CONFIDENCE_LEVEL: Final = 0.95
_MAX_COUNTS: Final = 4_000_000  # resampled user counts in memory; with many users the resamples are drawn in parts


class ConfidenceInterval(NamedTuple):
    """A mean with its confidence interval at CONFIDENCE_LEVEL, and the sample sizes."""

    mean: float
    low: float
    high: float
    events: int
    users: int


def mrr_difference(
    rank_N: NDArray[np.floating[Any]], other_rank_N: NDArray[np.floating[Any]], user_N: NDArray[Any], seed: int = 0
) -> ConfidenceInterval | None:
    """The paired difference in MRR: mean of `1 / rank_N - 1 / other_rank_N`; a rank of infinity counts 0.

    None if there is no event.
    """
    difference_N = 1 / np.asarray(rank_N, np.float64) - 1 / np.asarray(other_rank_N, np.float64)
    return confidence_interval(difference_N, user_N, seed=seed)


def confidence_interval(
    value_N: NDArray[np.floating[Any]], user_N: NDArray[Any], resamples: int = RESAMPLES, seed: int = 0
) -> ConfidenceInterval | None:
    """The mean of `value_N` with its bootstrap interval over users; None if there is no event."""
    if not len(value_N):
        return None
    mean_D = bootstrap_means(np.asarray(value_N)[:, None], user_N, resamples, seed)[:, 0]
    low, high = np.quantile(mean_D, [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2]).tolist()
    return ConfidenceInterval(float(np.mean(value_N)), low, high, len(value_N), len(np.unique(user_N)))


def bootstrap_means(
    value_NK: NDArray[np.floating[Any]], user_N: NDArray[Any], resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """mean_DK of K values of the same events; a resample draws the same users for all K values."""
    _, code_N = np.unique(user_N, return_inverse=True)
    user_count_U = np.bincount(code_N)
    sum_UK = np.stack([np.bincount(code_N, value_N) for value_N in value_NK.T], 1)
    users, rng = len(user_count_U), np.random.default_rng(seed)
    share_U = np.full(users, 1 / users)
    step = max(1, _MAX_COUNTS // users)
    means = []
    for start in range(0, resamples, step):
        drawn_DU = rng.multinomial(users, share_U, min(step, resamples - start))
        means.append((drawn_DU @ sum_UK) / (drawn_DU @ user_count_U)[:, None])
    return np.concatenate(means)
