"""Streaming counters of titles: popularity, transitions and co-occurrence, in bounded memory.

A counter learns a pair of titles from one event, a gradient needs many. The counters therefore carry titles and users
with few events. Popularity uses forward decay (Cormode et al. 2009): an event at time t adds
2^((t - landmark) / half-life), and a reader divides by the same power of the present time. Stored counts never have to
be rescaled for age.

V titles · Z decay clocks (half-lives) · B user-activity buckets · L events of one history
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.state.cooccurrence import PairCounts, add_pair, empty_pair_counts, evict_rows
from model.state.event_evidence import Evidence

HOUR_MS: Final = 3_600_000.0
DAY_MS: Final = 24 * HOUR_MS
# Not measured, except where a comment says so.
HALF_LIVES_MS: Final = (HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 365 * DAY_MS)
HALF_LIVES_EVENTS: Final = (500.0, 5_000.0)
CLOCKS: Final = len(HALF_LIVES_MS) + len(HALF_LIVES_EVENTS)
WEEK_CLOCK: Final = 2  # index of the clock with a half-life of seven days
ACTIVITY_BUCKETS: Final = (5, 15, 50, 150, 500)  # events of a user at which the next bucket begins
SESSION_EVENTS: Final = 10  # preceding events that count as one session
SESSION_DECAY: Final = 0.8  # weight of a session pair per event between the two titles
COOCCURRENCE_EVENTS: Final = 100  # preceding events whose titles co-occur with a new event's title
# Neighbors per title in transitions, session co-occurrence and co-occurrence: the memory of a title.
NEIGHBORS: Final = (48, 96, 192)
LIKING_PRIOR_EVENTS: Final = 5  # events with the global mean liking that are added to each title
_TITLE_ARRAYS: Final = ("popularity_VZ", "evidence_V2", "bucket_count_VB", "last_event_V", "liking_sum_V")
_PAIR_COUNTS: Final = ("transitions", "session_cooccurrence", "cooccurrence")
NO_EVENT: Final = np.iinfo(np.int64).min
NO_EVENT_HOURS: Final = 1e5  # hours since the last event, for a title without events
_REBASE_POWER: Final = 40.0  # powers of two after which a landmark moves, far below the limit of float32


class Counters(NamedTuple):
    """The arrays that compiled code reads; their rows are catalog rows."""

    popularity_VZ: NDArray[np.float32]  # decayed event counts, scaled by 2^((t - landmark) / half-life)
    evidence_V2: NDArray[np.float32]  # of established and of new users, by the last decay clock
    bucket_count_VB: NDArray[np.float32]  # events by the activity bucket of their users
    last_event_V: NDArray[np.int64]  # ms
    liking_sum_V: NDArray[np.float32]  # sum of the events' liking
    landmark_Z: NDArray[np.float64]  # ms, or events
    now_Z: NDArray[np.float64]  # latest reading of each clock: ms, or events
    transitions: PairCounts  # from a title to the directly following one
    session_cooccurrence: PairCounts  # from a title to those that follow within SESSION_EVENTS, with SESSION_DECAY
    cooccurrence: PairCounts  # pairs of one user's titles within COOCCURRENCE_EVENTS, in both directions


def empty_counters(titles: int, neighbors: tuple[int, int, int] = NEIGHBORS) -> Counters:
    """Return counters without events.

    `neighbors` is the maximum number of neighbors per title in transitions, session_cooccurrence and cooccurrence.
    """
    clocks = np.zeros(CLOCKS)
    return Counters(
        np.zeros((titles, CLOCKS), np.float32),
        np.zeros((titles, 2), np.float32),
        np.zeros((titles, len(ACTIVITY_BUCKETS) + 1), np.float32),
        np.full(titles, NO_EVENT, np.int64),
        np.zeros(titles, np.float32),
        clocks,
        clocks.copy(),
        *(empty_pair_counts(titles, k) for k in neighbors),
    )


def half_lives() -> NDArray[np.float64]:
    """Return the half-life of each clock in its unit, ms or events: [Z]."""
    return np.array(HALF_LIVES_MS + HALF_LIVES_EVENTS)


def advance_clocks(counters: Counters, ts: int, events: int) -> None:
    """Advance the clocks to `ts` ms and `events` counted; a late event does not move a clock back."""
    reading = np.array([float(ts)] * len(HALF_LIVES_MS) + [float(events)] * len(HALF_LIVES_EVENTS))
    if not counters.now_Z.any():
        counters.landmark_Z[:] = counters.now_Z[:] = reading
    np.maximum(counters.now_Z, reading, out=counters.now_Z)
    passed = (counters.now_Z - counters.landmark_Z) / half_lives()
    due = passed > _REBASE_POWER
    if due.any():
        counters.popularity_VZ[:, due] *= np.exp2(-passed[due]).astype(np.float32)
        if due[-1]:
            counters.evidence_V2[:] *= np.float32(np.exp2(-passed[-1]))
        counters.landmark_Z[due] = counters.now_Z[due]


def popularity_scale(counters: Counters) -> NDArray[np.float32]:
    """By what a stored count is multiplied to get the decayed count at the present time: [Z]."""
    return np.exp2(-(counters.now_Z - counters.landmark_Z) / half_lives()).astype(np.float32)


def event_weight(counters: Counters) -> NDArray[np.float32]:
    """Return the weight that an event at the present time adds to each clock: [Z]."""
    return np.exp2((counters.now_Z - counters.landmark_Z) / half_lives()).astype(np.float32)


def mean_of_liking(counters: Counters, count_V: NDArray[np.float32]) -> float:
    """The mean liking of all events."""
    return float(counters.liking_sum_V[: len(count_V)].sum() / max(count_V.sum(), 1))


@njit(cache=True)
def activity_bucket(events: int) -> int:
    """Return the activity bucket of a user with this many events."""
    for bucket, end in enumerate(ACTIVITY_BUCKETS):
        if events < end:
            return bucket
    return len(ACTIVITY_BUCKETS)


class EventContext(NamedTuple):
    """An event's attributes that the counters use, besides its title and history."""

    liking: float
    user_events: int  # of the user before this event
    evidence: Evidence = Evidence()  # what it adds to the counts of its title


@njit(cache=True)
def count_event(
    counters: Counters, weight_Z: NDArray[np.float32], row: int, recent_L: NDArray[np.int32], context: EventContext
) -> float:
    """Count one event on `row` and return its weight; `recent_L` are the user's earlier titles, newest first."""
    counted = _count_evidence(counters.evidence_V2[row], weight_Z[-1], context.evidence)
    for z in range(weight_Z.size):
        counters.popularity_VZ[row, z] += counted * weight_Z[z]
    counters.bucket_count_VB[row, activity_bucket(context.user_events)] += counted
    counters.last_event_V[row] = np.int64(counters.now_Z[0])
    counters.liking_sum_V[row] += counted * context.liking
    weight = 1.0
    for j in range(min(recent_L.size, COOCCURRENCE_EVENTS)):
        other = recent_L[j]
        if other < 0 or other == row:
            continue
        if j == 0:
            add_pair(counters.transitions, other, row, 1.0)
        if j < SESSION_EVENTS:
            add_pair(counters.session_cooccurrence, other, row, weight)
            weight *= SESSION_DECAY
        add_pair(counters.cooccurrence, other, row, 1.0)
        add_pair(counters.cooccurrence, row, other, 1.0)
    return counted


@njit(cache=True)
def _count_evidence(evidence_2: NDArray[np.float32], scale: float, evidence: Evidence) -> float:
    """Add an event's evidence to its title's, and return the part of it that counts. `scale` is of the decay clock."""
    evidence_2[0] += scale * evidence.established
    room = evidence.max_ratio * (evidence_2[0] / scale + evidence.prior) - evidence_2[1] / scale
    new = float(min(evidence.new, max(room, 0.0)))
    evidence_2[1] += scale * new
    return evidence.established + new


def evict_titles(counters: Counters, rows: NDArray[np.int64]) -> None:
    """Clear all counts of evicted titles."""
    counters.popularity_VZ[rows], counters.bucket_count_VB[rows], counters.liking_sum_V[rows] = 0, 0, 0
    counters.evidence_V2[rows] = 0
    counters.last_event_V[rows] = NO_EVENT
    for name in _PAIR_COUNTS:
        evict_rows(getattr(counters, name), rows)


def resized(counters: Counters, titles: int) -> Counters:
    """Return the same counts with a larger capacity of `titles` rows."""
    neighbors = tuple(getattr(counters, name).to_VK.shape[1] for name in _PAIR_COUNTS)
    added = empty_counters(titles - len(counters.popularity_VZ), neighbors)  # type: ignore[arg-type]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(counters, name), getattr(added, name)]) for name in _TITLE_ARRAYS
    }
    for name in _PAIR_COUNTS:
        parts = zip(getattr(counters, name), getattr(added, name), strict=True)
        arrays[name] = PairCounts(*(np.concatenate([old, new]) for old, new in parts))
    return counters._replace(**arrays)


def counters_state(counters: Counters, titles: int) -> dict[str, Any]:
    """Return copies of all arrays, cut to `titles` rows."""
    pairs = {name: [array[:titles].copy() for array in getattr(counters, name)] for name in _PAIR_COUNTS}
    clocks = {"landmark_Z": counters.landmark_Z.copy(), "now_Z": counters.now_Z.copy()}
    arrays = {name: getattr(counters, name)[:titles].copy() for name in _TITLE_ARRAYS}
    return {**arrays, **clocks, **pairs}


def load_counters(counters: Counters, state: dict[str, Any]) -> None:
    """Copy the state into `counters`, which must have at least as many rows."""
    titles = len(state["popularity_VZ"])
    for name in _TITLE_ARRAYS:
        getattr(counters, name)[:titles] = state[name]
    counters.landmark_Z[:], counters.now_Z[:] = state["landmark_Z"], state["now_Z"]
    for name in _PAIR_COUNTS:
        for array, saved in zip(getattr(counters, name), state[name], strict=True):
            array[:titles] = saved
