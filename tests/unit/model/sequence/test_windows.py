"""A history is cut into windows that hold the events to predict, with events before them."""

import numpy as np
import pytest

from model.sequence.windows import Window, split, stack
from model.state.stream_state import History

LIMIT = 8


def history(length: int) -> History:
    rows = np.arange(length)
    return History("u", rows, rows * 1000, np.ones(length, np.int64))


@pytest.mark.parametrize(("length", "windows"), [(LIMIT, 1), (LIMIT + 1, 2)])
def test_history_that_fits_is_one_window(length: int, windows: int) -> None:
    parts = split(history(length), [0, length - 1], LIMIT)
    assert len(parts) == windows
    assert [event for part in parts for event in part.events] == [0, length - 1]
    assert not parts[0].truncated


def test_windows_are_stacked_left_aligned_with_the_weights_of_the_events() -> None:
    windows = stack([Window(history(3), 0, 3, [2], False), Window(history(9), 4, 9, [5, 8], True)], LIMIT)
    assert windows.title_BL.tolist() == [[0, 1, 2, -1, -1], [4, 5, 6, 7, 8]]
    assert windows.weight_BL.tolist() == [[0, 0, 1, 0, 0], [0, 1, 0, 0, 1]]
    assert windows.time_BL[1].tolist() == [4000, 5000, 6000, 7000, 8000]
    assert windows.length_B.tolist() == [3, 5]
    assert windows.truncated_B is not None
    assert windows.truncated_B.tolist() == [False, True]
