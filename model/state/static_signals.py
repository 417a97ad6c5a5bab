"""The signals of each title that are the same for all users, kept up to date as events arrive.

They change with every event and with time. Only the titles whose events changed are computed anew at once, and all
others in turn (`StreamState.refresh`).

V titles · F static signals · Z decay clocks · M a subset of titles
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.signals.table import STATICS, Static
from model.state.counters import (
    HOUR_MS,
    LIKING_PRIOR_EVENTS,
    NO_EVENT,
    NO_EVENT_HOURS,
    Counters,
    mean_of_liking,
    popularity_scale,
)


def new_static_signals(titles: int) -> NDArray[np.float32]:
    """Signals of `titles` titles that have never been computed: static_VF."""
    return np.zeros((titles, STATICS), np.float32)


def update_static_signals(
    static_VF: NDArray[np.float32], counters: Counters, count_V: NDArray[np.float32], row_M: NDArray[np.int64]
) -> None:
    """Compute the signals of these titles as of the counters' present time. `count_V` are the events by evidence."""
    _update(static_VF, counters, popularity_scale(counters), count_V, mean_of_liking(counters, count_V), row_M)


@njit(cache=True)
def _update(
    static_VF: NDArray[np.float32],
    counters: Counters,
    scale_Z: NDArray[np.float32],
    count_V: NDArray[np.float32],
    mean_liking: float,
    row_M: NDArray[np.int64],
) -> None:
    popularity_VZ, last_event_V, liking_sum_V = counters.popularity_VZ, counters.last_event_V, counters.liking_sum_V
    prior, mean, now = np.float32(LIKING_PRIOR_EVENTS), np.float32(mean_liking), counters.now_Z[0]
    for row in row_M:
        for z in range(scale_Z.size):
            static_VF[row, z] = np.log1p(popularity_VZ[row, z] * scale_Z[z])
        count = count_V[row]
        static_VF[row, Static.POPULARITY_TOTAL] = np.log1p(count)
        static_VF[row, Static.NO_EVENTS] = np.rint(count) == 0
        static_VF[row, Static.ONE_EVENT] = np.rint(count) == 1
        last = last_event_V[row]
        hours = NO_EVENT_HOURS if last == NO_EVENT else (now - float(last)) / HOUR_MS
        static_VF[row, Static.HOURS_SINCE_LAST_EVENT] = np.log1p(hours)
        static_VF[row, Static.MEAN_LIKING] = (liking_sum_V[row] + prior * mean) / (count + prior)
