"""Known curves of quality against size, and noisy resamples of them."""

from typing import Final

import numpy as np

from model.metrics.bootstrap import bootstrap_means
from model.metrics.scaling_law import Floats

N: Final = np.array([3e3, 1e4, 9e4, 3e5, 8e5, 2e6])
P0, A, N0 = 0.31, 0.4, 200.0
CURVE: Final = P0 - (N / N0) ** -A
LINE: Final = 0.05 + 0.01 * np.log(N)


def drawn(p_S: Floats, users: int, noise: float, seed: int = 1) -> tuple[Floats, Floats]:
    """Points and bootstrap resamples of users with different levels and, in each size, noise."""
    random = np.random.default_rng(seed)
    value_NS = p_S + random.normal(0, 0.1, (users, 1)) + random.normal(0, noise, (users, len(p_S)))
    return value_NS.mean(0), bootstrap_means(value_NS, np.arange(users), 300)
