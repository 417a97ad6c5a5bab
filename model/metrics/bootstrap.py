"""Is one ranking better than another, on the same events? The mean difference, and how far chance alone could move it.

Events of one user are alike, so that they are no independent draws: whole users are drawn again, with replacement (the
cluster bootstrap). The mean is over events, so a draw's mean is the sum over its users of their differences, divided by
the sum of their numbers of events. With few users the interval is wide, however many events there are, and rightly so.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.

N events · U users · D draws · K values of an event
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 2000
LEVEL: Final = 0.95
_AT_ONCE: Final = 4_000_000  # numbers held: with many users, some draws after the others


class Interval(NamedTuple):
    """A mean with the bounds that LEVEL of the draws lie within; and of how much it is."""

    mean: float
    low: float
    high: float
    events: int
    users: int


def difference(
    rank_N: NDArray[np.floating[Any]], rival_N: NDArray[np.floating[Any]], user_N: NDArray[Any], seed: int = 0
) -> Interval | None:
    """By how much the reciprocal ranks exceed the rival's, event by event; a rank of infinity counts 0."""
    return interval(1 / np.asarray(rank_N, np.float64) - 1 / np.asarray(rival_N, np.float64), user_N, seed=seed)


def interval(
    value_N: NDArray[np.floating[Any]], user_N: NDArray[Any], draws: int = DRAWS, seed: int = 0
) -> Interval | None:
    """The mean of `value_N` with its interval by users; None where there is no event."""
    if not len(value_N):
        return None
    means = resampled(np.asarray(value_N)[:, None], user_N, draws, seed)[:, 0]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Interval(float(np.mean(value_N)), low, high, len(value_N), len(np.unique(user_N)))


def resampled(
    value_NK: NDArray[np.floating[Any]], user_N: NDArray[Any], draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """mean_DK of values of the same events, each draw of the same users for all of them."""
    _, code_N = np.unique(user_N, return_inverse=True)
    user_count_U = np.bincount(code_N)
    sum_UK = np.stack([np.bincount(code_N, value_N) for value_N in value_NK.T], 1)
    users, rng = len(user_count_U), np.random.default_rng(seed)
    share_U = np.full(users, 1 / users)
    step = max(1, _AT_ONCE // users)
    means = []
    for start in range(0, draws, step):
        drawn_DU = rng.multinomial(users, share_U, min(step, draws - start))
        means.append((drawn_DU @ sum_UK) / (drawn_DU @ user_count_U)[:, None])
    return np.concatenate(means)
