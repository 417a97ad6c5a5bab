"""The static signals of all titles, computed at once."""

import numpy as np
from numpy.typing import NDArray

from model.signals.table import Static
from model.state.counters import CLOCKS, Counters
from model.state.static_signals import new_static_signals, update_static_signals


def static_signals(counters: Counters, titles: int, count_V: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """static_VF of the first `titles` rows at the counters' present time; by default no title has events."""
    static_VF = new_static_signals(titles)
    count_V = np.zeros(titles, np.float32) if count_V is None else count_V
    update_static_signals(static_VF, counters, count_V, np.arange(titles))
    return static_VF


def log_popularity(counters: Counters, titles: int) -> NDArray[np.float32]:
    """log(1 + decayed count): [V, Z]."""
    return static_signals(counters, titles)[:, :CLOCKS]


def log_hours_since_event(counters: Counters, titles: int) -> NDArray[np.float32]:
    """log(1 + hours since the last event): [V]."""
    return static_signals(counters, titles)[:, Static.HOURS_SINCE_LAST_EVENT]


def mean_liking(counters: Counters, count_V: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean liking of each title's events: [V]."""
    return static_signals(counters, len(count_V), count_V)[:, Static.MEAN_LIKING]
