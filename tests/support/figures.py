"""The content of a figure, read from its matplotlib objects instead of from pixels."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray


@contextmanager
def axes_of(draw: Callable[..., None], *arguments: Any) -> Iterator[list[Axes]]:
    """The axes of the figure that `draw(*arguments, path)` writes, row by row. Asserts that the file is a PNG."""
    kept: list[Figure] = []
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "figure.png"
        close = plt.close
        patch.setattr(plt, "close", kept.append)
        draw(*arguments, path)
        assert path.read_bytes().startswith(b"\x89PNG")
        (figure,) = kept
        yield figure.axes
        close(figure)


def labeled_lines(axes: Axes) -> dict[str, NDArray[np.float64]]:
    """The points [x, y] of each line with a label, by label; matplotlib labels the other lines with an underscore."""
    return {
        str(line.get_label()): points(line) for line in axes.get_lines() if not str(line.get_label()).startswith("_")
    }


def unlabeled_lines(axes: Axes) -> list[list[list[float]]]:
    """The points [x, y] of each line without a label, for example of an interval, in drawing order."""
    return [points(line).tolist() for line in axes.get_lines() if str(line.get_label()).startswith("_")]


def points(line: Any) -> NDArray[np.float64]:
    return np.array([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])


def tick_labels(axes: Axes) -> list[str]:
    """The labels on the x axis."""
    return [label.get_text() for label in axes.get_xticklabels()]


def assert_gains_drawn(axes: Axes, gains: Mapping[str, Mapping[int, Mapping[str, float] | None]]) -> None:
    """Assert that each label has its mean gains, each near its row and on its interval, and that zero has a line.

    `gains`: label -> row -> gain, or None if nothing was scored.
    """
    means_by_label, intervals = labeled_lines(axes), unlabeled_lines(axes)
    assert list(means_by_label) == list(gains)
    for (means, rows), by_row in zip(means_by_label.values(), gains.values(), strict=True):
        scored = {row: gain for row, gain in by_row.items() if gain}
        assert rows.round().tolist() == list(scored)
        assert means.tolist() == [gain["mean"] for gain in scored.values()]
        for row, gain in zip(rows.tolist(), scored.values(), strict=True):
            assert [[gain["low"], gain["high"]], [row, row]] in intervals
    assert len(intervals) == 1 + sum(len(rows) for _, rows in means_by_label.values())
