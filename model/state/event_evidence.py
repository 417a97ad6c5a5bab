"""The evidence of an event: how much it counts in the popularity of its title, from 0 to 1.

Anyone who can send events can repeat one or invent users. The counters of titles therefore weigh each event, while the
user's own history, sessions and co-occurrence keep every event as it is.

- Repeats: of a user's events on one title within a day, the k-th counts 1/k^2, and none beyond `daily_repeats`.
- New users: a user's standing grows with the number of the user's earlier events from 0 to 1, which is an established
  user. The rest of the weight, up to 1, counts only as far as established users back the title: a title's events of
  new users may be as many as those of established users, or `new_user_share` times the stream's ratio if that is more.
  On a news page nearly all users are new, and nearly all of their events count. A hundred invented users on a title
  that nobody else watches count like a few events.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.settings import EvidenceSettings

DAY_MS: Final = 86_400_000


class Evidence(NamedTuple):
    """What an event adds to the counts of its title."""

    established: float = 1.0  # the part that counts in any case
    new: float = 0.0  # the part that counts only as far as established users back the title
    max_ratio: float = 1.0  # of the title's new to its established part
    prior: float = 0.0  # added to the title's established part


class EvidenceRatio:
    """Weighs events; the state is the decayed number of established and new users' events in the stream."""

    def __init__(self, settings: EvidenceSettings) -> None:
        self.settings = settings
        self.established, self.new = 0.0, 0.0

    def weigh(self, user_events: int, repeat: int) -> Evidence:
        """The evidence of the next event, from a user with `user_events` earlier ones; it is the user's `repeat`-th."""
        s = self.settings
        standing = float(min(1.0, (user_events + 1) / s.established_events) ** s.growth)
        keep = 1 - 1 / s.ratio_events
        self.established = self.established * keep + standing
        self.new = self.new * keep + 1 - standing
        counted = 1.0
        if s.daily_repeats:
            counted = 1 / repeat**2 if repeat <= s.daily_repeats else 0.0
        max_ratio = max(1.0, s.new_user_share * self.new / self.established)
        return Evidence(standing * counted, (1 - standing) * counted, max_ratio, s.prior_events)

    def state_dict(self) -> list[float]:
        return [self.established, self.new]

    def load_state_dict(self, state: list[float]) -> None:
        self.established, self.new = state


def repeat_number(
    rows_L: NDArray[np.int64], times_L: NDArray[np.int64], counted_L: NDArray[np.bool_], index: int, clock: float
) -> int:
    """The number of event `index` among the user's events on its title within a day, from 1.

    `counted_L` are the events that were counted before this one. An event that is more than a day older than the
    `clock` of the counters (ms) is compared with all of them: backdated events must not each have a day of their own.
    """
    same_L = counted_L & (rows_L == rows_L[index])
    if times_L[index] > clock - DAY_MS:
        same_L &= np.abs(times_L - times_L[index]) < DAY_MS
    same_L[index] = False
    return 1 + int(np.count_nonzero(same_L))
