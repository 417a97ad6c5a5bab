"""The figures of the results page show the numbers of the parts' files."""

import numpy as np
from matplotlib.colors import to_hex

from infra.experiments import results_figures
from infra.experiments.results_figures import VERDICT_COLORS
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, WORSE
from tests.support.figures import axes_of, labeled_lines, unlabeled_lines


def gain(low: float, high: float) -> dict[str, dict[str, float]]:
    return {"all": {"mean": (low + high) / 2, "low": low, "high": high, "users": 30}}


def test_curves_show_labeled_variants_and_vertical_lines() -> None:
    curve = {"events": [100.0, 200.0], "popularity": [0.1, 0.2], "full": [0.3, 0.4], "frozen": [0.2, 0.2]}
    labels = {"full": "Premiere", "popularity": "most popular", "no_backbone": "not in the curve"}
    with axes_of(results_figures.curves, curve, labels, [150]) as (axes,):
        lines = {label: points.tolist() for label, points in labeled_lines(axes).items()}
        assert lines == {"Premiere": [[100, 200], [0.3, 0.4]], "most popular": [[100, 200], [0.1, 0.2]]}
        assert unlabeled_lines(axes) == [[[150, 150], [0, 1]]]
        assert axes.get_ylabel() == "MRR per 100 events"
        assert axes.get_xlim() == (0, 200)


def test_bars_show_gains_intervals_and_verdicts() -> None:
    gains = {"up": gain(0.01, 0.03), "down": gain(-0.03, -0.01), "same": gain(-0.01, 0.03)}
    table = {name: {"gain": of, "backbone_only_gain": of if name == "up" else None} for name, of in gains.items()}
    table = {"default": {"gain": gain(0, 0), "backbone_only_gain": gain(0, 0)}, **table}
    with axes_of(results_figures.bars, table) as (left, right):
        bars = [bar for container in left.containers for bar in container]
        np.testing.assert_allclose([bar.get_width() for bar in bars], [0.02, -0.02, 0.01])
        colors = [to_hex(bar.get_facecolor()) for bar in bars]
        assert colors == [VERDICT_COLORS[verdict] for verdict in (BETTER, WORSE, INCONCLUSIVE)]
        intervals = [[of["all"]["low"], of["all"]["high"]] for of in gains.values()]
        assert [x for x, _ in unlabeled_lines(left)[:-1]] == intervals  # the last line is zero
        assert [label.get_text() for label in left.get_yticklabels()] == list(gains)
        assert len(right.containers) == 1


def test_throughput_shows_speed_and_memory_by_mode() -> None:
    samples = {
        "default": [{"events": 10.0 * k, "events_per_s": 100.0 - k, "resident_mib": 500.0 + k} for k in (1, 2)],
        "no replay": [{"events": 30.0, "events_per_s": 200.0, "resident_mib": 400.0}],
    }
    with axes_of(results_figures.throughput, samples) as panels:
        speed, memory = ({label: p.tolist() for label, p in labeled_lines(axes).items()} for axes in panels)
    assert speed == {"default": [[10, 20], [99, 98]], "no replay": [[30], [200]]}
    assert memory == {"default": [[10, 20], [501, 502]], "no replay": [[30], [400]]}
