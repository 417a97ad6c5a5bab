"""What a stream teaches by counting: how popular, with whom, what follows what, what goes together; all bounded.

Counts learn a pair from one event where a gradient needs many, so they carry young titles and young users. Popularity
uses forward decay (Cormode et al. 2009): an event at time t adds 2^((t - landmark) / half-life) and a reader divides by
the same power of now, so that nothing has to be aged.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model.state.cooccurrence import Pairs, add_pair, empty_pairs, evict_rows

HALF_LIVES_MS: Final = (3_600_000.0, 86_400_000.0, 7 * 86_400_000.0, 30 * 86_400_000.0, 365 * 86_400_000.0)
HALF_LIVES_EVENTS: Final = (500.0, 5_000.0)
CLOCKS: Final = len(HALF_LIVES_MS) + len(HALF_LIVES_EVENTS)
STAGES: Final = (5, 15, 50, 150, 500)  # events of a user at which a stage of their life ends
NEAR: Final = 10  # titles back that count as one sitting
TOGETHER: Final = 100  # titles back that count as one taste
_TITLED: Final = ("popular_VC", "stage_VB", "last_V", "liking_V")
_NEVER: Final = np.iinfo(np.int64).min
_LONG_AGO: Final = 1e5  # hours: a title without an event
_REBASE: Final = 40.0  # powers of two before the landmark moves: far from float32's end


class Counters(NamedTuple):
    """The arrays that numba reads; rows are catalogue rows.

    popular_VC decayed counts by clock (times 2^((t - landmark) / half-life)) · stage_VB events by the stage of their
    users · last_V ms of the last event · liking_V summed · landmark_C · now_C the clocks' newest reading (ms, events) ·
    follow what came directly after · near what came within NEAR after, weight .8^gap · together what the same users did
    within TOGETHER, both ways
    """

    popular_VC: NDArray[np.float32]
    stage_VB: NDArray[np.float32]
    last_V: NDArray[np.int64]
    liking_V: NDArray[np.float32]
    landmark_C: NDArray[np.float64]
    now_C: NDArray[np.float64]
    follow: Pairs
    near: Pairs
    together: Pairs


def empty_counters(titles: int, slots: tuple[int, int, int] = (48, 96, 192)) -> Counters:
    """Nothing counted yet; `slots` bounds the neighbours a title keeps in follow, near and together."""
    follow, near, together = (empty_pairs(titles, k) for k in slots)
    clocks = np.zeros(CLOCKS)
    f = np.float32
    stages, last, liking = (
        np.zeros((titles, len(STAGES) + 1), f),
        np.full(titles, _NEVER, np.int64),
        np.zeros(titles, f),
    )
    popular = np.zeros((titles, CLOCKS), f)
    return Counters(popular, stages, last, liking, clocks, clocks.copy(), follow, near, together)


def half_lives() -> NDArray[np.float64]:
    """Half-life of each clock, in its own unit."""
    return np.array(HALF_LIVES_MS + HALF_LIVES_EVENTS)


def tick(counters: Counters, ts: int, events: int) -> None:
    """Set the clocks to `ts` ms and `events` counted; one late record moves nothing back."""
    reading = np.array([float(ts)] * len(HALF_LIVES_MS) + [float(events)] * len(HALF_LIVES_EVENTS))
    if not counters.now_C.any():
        counters.landmark_C[:] = counters.now_C[:] = reading
    np.maximum(counters.now_C, reading, out=counters.now_C)
    passed = (counters.now_C - counters.landmark_C) / half_lives()
    stale = passed > _REBASE
    if stale.any():
        counters.popular_VC[:, stale] *= np.exp2(-passed[stale]).astype(np.float32)
        counters.landmark_C[stale] = counters.now_C[stale]


def popularity(counters: Counters, titles: int) -> NDArray[np.float32]:
    """log(1 + decayed count) of the first `titles` rows by clock, as of now: [V, C]."""
    scale = np.exp2(-(counters.now_C - counters.landmark_C) / half_lives()).astype(np.float32)
    popular_VC: NDArray[np.float32] = np.log1p(counters.popular_VC[:titles] * scale)
    return popular_VC


def gain(counters: Counters) -> NDArray[np.float32]:
    """What one event adds to each clock now: [C]."""
    return np.exp2((counters.now_C - counters.landmark_C) / half_lives()).astype(np.float32)


def quiet(counters: Counters, titles: int) -> NDArray[np.float32]:
    """log(1 + hours since a title's last event); a long time where it has none: [V]."""
    hours_V = (counters.now_C[0] - counters.last_V[:titles].astype(np.float64)) / 3_600_000
    quiet_V: NDArray[np.float32] = np.log1p(np.where(counters.last_V[:titles] == _NEVER, _LONG_AGO, hours_V))
    return quiet_V.astype(np.float32)


def liked(counters: Counters, count_V: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean liking of a title's events, those of a few drawn to the mean of all: [V]."""
    liking_V, few = counters.liking_V[: len(count_V)], np.float32(5)
    mean = liking_V.sum() / max(count_V.sum(), 1)
    liked_V: NDArray[np.float32] = (liking_V + few * mean) / (count_V + few)
    return liked_V


@njit(cache=True)
def activity_bucket(events: int) -> int:
    """Which stage of a user's life so many events are."""
    for stage, end in enumerate(STAGES):
        if events < end:
            return stage
    return len(STAGES)


class EventKind(NamedTuple):
    """What an event was: how much its title was liked, and how many events its user had before."""

    liking: float
    events: int


@njit(cache=True)
def count_event(
    counters: Counters, gain_C: NDArray[np.float32], row: int, recent_L: NDArray[np.int32], kind: EventKind
) -> None:
    """Count one event on `row` by a user whose titles before it, newest first, are `recent_L`."""
    for c in range(gain_C.size):
        counters.popular_VC[row, c] += gain_C[c]
    counters.stage_VB[row, activity_bucket(kind.events)] += 1.0
    counters.last_V[row] = np.int64(counters.now_C[0])
    counters.liking_V[row] += kind.liking
    weight = 1.0
    for j in range(min(recent_L.size, TOGETHER)):
        other = recent_L[j]
        if other < 0 or other == row:
            continue
        if j == 0:
            add_pair(counters.follow, other, row, 1.0)
        if j < NEAR:
            add_pair(counters.near, other, row, weight)
            weight *= 0.8
        add_pair(counters.together, other, row, 1.0)
        add_pair(counters.together, row, other, 1.0)


def evict_titles(counters: Counters, rows: NDArray[np.int64]) -> None:
    """Clear evicted rows."""
    counters.popular_VC[rows], counters.stage_VB[rows], counters.liking_V[rows] = 0, 0, 0
    counters.last_V[rows] = _NEVER
    for pairs in (counters.follow, counters.near, counters.together):
        evict_rows(pairs, rows)


def grown(counters: Counters, titles: int) -> Counters:
    """The same counts with room for `titles` rows."""
    extra = titles - len(counters.popular_VC)
    slots = tuple(pairs.to_VK.shape[1] for pairs in (counters.follow, counters.near, counters.together))
    more = empty_counters(extra, slots)  # type: ignore[arg-type]
    join = np.concatenate
    follow, near, together = [
        Pairs(*(join([a, b]) for a, b in zip(old, new, strict=True)))
        for old, new in zip(counters[-3:], more[-3:], strict=True)
    ]
    popular, stages, last, liking = [join([a, b]) for a, b in zip(counters[:4], more[:4], strict=True)]
    clocks = counters.landmark_C, counters.now_C
    return Counters(popular, stages, last, liking, *clocks, follow, near, together)


def counters_state(counters: Counters, titles: int) -> dict[str, Any]:
    """Everything, as a tree of arrays (copies) cut to `titles` rows."""
    tables = {name: [a[:titles].copy() for a in getattr(counters, name)] for name in ("follow", "near", "together")}
    clocks = {"landmark_C": counters.landmark_C.copy(), "now_C": counters.now_C.copy()}
    titled = {name: getattr(counters, name)[:titles].copy() for name in _TITLED}
    return {**titled, **clocks, **tables}


def load_counters(counters: Counters, state: dict[str, Any]) -> None:
    """Take the state into `counters`, which must have at least as many rows."""
    titles = len(state["popular_VC"])
    for name in _TITLED:
        getattr(counters, name)[:titles] = state[name]
    counters.landmark_C[:], counters.now_C[:] = state["landmark_C"], state["now_C"]
    for name in ("follow", "near", "together"):
        for mine, saved in zip(getattr(counters, name), state[name], strict=True):
            mine[:titles] = saved
