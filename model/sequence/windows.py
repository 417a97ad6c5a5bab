"""Cuts windows out of histories, and stacks them into arrays.

B windows · L events of a window
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from model.sequence.network import Windows
from model.state.stream_state import History


class Window(NamedTuple):
    """The events [start, stop) of a history."""

    history: History
    start: int
    stop: int
    events: Sequence[int]  # indices of the events to predict
    truncated: bool  # whether the user has events before the window


def split(history: History, events: Sequence[int], limit: int) -> list[Window]:
    """Windows of at most `limit` events that together hold `events`.

    A history that fits is one window. Else each window ends with some of `events`, and at least half of it precedes
    them.
    """
    windows: list[Window] = []
    rest = sorted(events)
    if rest and rest[-1] < limit:
        return [Window(history, 0, rest[-1] + 1, rest, False)]
    while rest:
        part = [event for event in rest if event < rest[0] + limit // 2]
        stop = part[-1] + 1
        start = max(stop - limit, 0)
        windows.append(Window(history, start, stop, part, start > 0))
        rest = rest[len(part) :]
    return windows


def stack(windows: Sequence[Window], limit: int) -> Windows:
    """Windows of at most `limit` events as left-aligned arrays; the weight is 1 for the events to predict, else 0."""
    lengths = [window.stop - window.start for window in windows]
    assert max(lengths, default=0) <= limit
    shape = len(windows), max(lengths, default=0)
    title_BL, action_BL = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    time_BL, weight_BL = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    for b, (window, n) in enumerate(zip(windows, lengths, strict=True)):
        part = slice(window.start, window.stop)
        title_BL[b, :n], time_BL[b, :n] = window.history.rows_L[part], window.history.times_L[part]
        action_BL[b, :n] = window.history.actions_L[part]
        weight_BL[b, [event - window.start for event in window.events]] = 1
    title, action, time, weight = map(torch.from_numpy, (title_BL, action_BL, time_BL, weight_BL))
    truncated_B = torch.tensor([window.truncated for window in windows])
    return Windows(title, action, time, weight, torch.tensor(lengths, dtype=torch.int64), truncated_B.bool())
