"""The new events of a user's update, as the learner ranks them and as the counters count them.

L events of a history
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from model.actions import TARGET_WEIGHTS
from model.state.event_evidence import repeat_number
from model.state.stream_state import History, StreamState, UserUpdate

NO_RECORD_TIME: Final = np.iinfo(np.int64).max  # of an event that comes from no log
_IS_TARGET: Final = np.array(TARGET_WEIGHTS) > 0  # by action code


class AdmittedEvent(NamedTuple):
    """A new event on a title of the catalog."""

    history: History  # before the event
    event_index: int  # in the update's history
    order: int  # of the event in its batch
    row: int  # of the title in the catalog
    ts: int  # ms
    recorded: int  # ms, when the log took the event
    action: int  # code
    repeat: int  # number among the user's events on the title within a day


def positive_events(update: UserUpdate) -> list[int]:
    """The indices of the new events of positive weight."""
    return [index for index in update.new if TARGET_WEIGHTS[update.actions[index]] > 0]


def admit_events(state: StreamState, update: UserUpdate) -> tuple[History, list[AdmittedEvent]]:
    """The user's history, and the new events of positive weight on titles that have a row, or get one now."""
    targets = [index for index in positive_events(update) if state.admit(update.titles[index], update.user)]
    rows_L = state.catalog.rows_of(update.titles)
    history = History(update.user, rows_L, np.array(update.times, np.int64), np.array(update.actions, np.int64))
    order = dict(zip(update.new, update.order, strict=True))
    recorded = dict(zip(update.new, update.recorded or [NO_RECORD_TIME] * len(update.new), strict=True))
    clock = float(state.counters.now_Z[0])
    events = []
    for index in targets:
        row, ts, action = (int(array_L[index]) for array_L in (history.rows_L, history.times_L, history.actions_L))
        repeat = _repeat(update.new, history, index, clock)
        where = history.before(index), index, order[index]
        events.append(AdmittedEvent(*where, row, ts, recorded[index], action, repeat))
    return history, events


def _repeat(new: Sequence[int], history: History, index: int, clock: float) -> int:
    counted_L = _IS_TARGET[history.actions_L]
    counted_L[[i for i in new if i > index]] = False
    return repeat_number(history.rows_L, history.times_L, counted_L, index, clock)
