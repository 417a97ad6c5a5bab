"""The figures of the results page show the numbers of the parts' files."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from infra.experiments import results_figures
from infra.experiments.results_figures import VERDICT_COLORS
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, WORSE
from tests.support.figures import labeled_lines, unlabeled_lines


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A path for a figure. After it is saved, the figure stays open as the current one until the test has ended."""
    with monkeypatch.context() as patch:
        patch.setattr(plt, "close", lambda _figure: None)
        yield tmp_path / "figure.png"
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    plt.close()


def gain(low: float, high: float) -> dict[str, dict[str, float]]:
    return {"all": {"mean": (low + high) / 2, "low": low, "high": high, "users": 30}}


def test_curves_show_labeled_variants_and_vertical_lines(path: Path) -> None:
    curve = {"events": [100.0, 200.0], "popularity": [0.1, 0.2], "full": [0.3, 0.4], "frozen": [0.2, 0.2]}
    labels = {"full": "Premiere", "popularity": "most popular", "no_backbone": "not in the curve"}
    results_figures.curves(curve, labels, path, [150])
    (axes,) = plt.gcf().axes
    lines = {label: points.tolist() for label, points in labeled_lines(axes).items()}
    assert lines == {"Premiere": [[100, 200], [0.3, 0.4]], "most popular": [[100, 200], [0.1, 0.2]]}
    assert unlabeled_lines(axes) == [[[150, 150], [0, 1]]]
    assert axes.get_ylabel() == "MRR per 100 events"
    assert axes.get_xlim() == (0, 200)


def test_bars_show_gains_intervals_and_verdicts(path: Path) -> None:
    gains = {"up": gain(0.01, 0.03), "down": gain(-0.03, -0.01), "same": gain(-0.01, 0.03)}
    table = {name: {"gain": of, "backbone_only_gain": of if name == "up" else None} for name, of in gains.items()}
    results_figures.bars({"default": {"gain": gain(0, 0), "backbone_only_gain": gain(0, 0)}, **table}, path)
    left, right = plt.gcf().axes
    bars = [bar for container in left.containers for bar in container]
    np.testing.assert_allclose([bar.get_width() for bar in bars], [0.02, -0.02, 0.01])
    colors = [to_hex(bar.get_facecolor()) for bar in bars]
    assert colors == [VERDICT_COLORS[verdict] for verdict in (BETTER, WORSE, INCONCLUSIVE)]
    intervals = [[of["all"]["low"], of["all"]["high"]] for of in gains.values()]
    assert [x for x, _ in unlabeled_lines(left)[:-1]] == intervals  # the last line is zero
    assert [label.get_text() for label in left.get_yticklabels()] == list(gains)
    assert len(right.containers) == 1


def test_throughput_shows_speed_and_memory_by_mode(path: Path) -> None:
    samples = {
        "default": [{"events": 10.0 * k, "events_per_s": 100.0 - k, "resident_mib": 500.0 + k} for k in (1, 2)],
        "no replay": [{"events": 30.0, "events_per_s": 200.0, "resident_mib": 400.0}],
    }
    results_figures.throughput(samples, path)
    speed, memory = ({label: p.tolist() for label, p in labeled_lines(axes).items()} for axes in plt.gcf().axes)
    assert speed == {"default": [[10, 20], [99, 98]], "no replay": [[30], [200]]}
    assert memory == {"default": [[10, 20], [501, 502]], "no replay": [[30], [400]]}
