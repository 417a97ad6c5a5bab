"""The report of the multitask experiment: its sentences, its numbers and its figure."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from infra.experiments import multitask, multitask_report
from infra.experiments.multitask import SHARED, SLICES_SHOWN, TASK_LABELS
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, MIN_USERS, WORSE
from model.sequence.tasks import GENRE
from tests.support.evaluation import SETTINGS, SILENT, START_S, dataset_of, genre_cycle, no_text
from tests.support.figures import assert_gains_drawn, axes_of, labeled_lines
from tests.support.multitask import gain_panel


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """A report of a short run; its numbers do not matter."""
    return multitask.report(genre_cycle(320), no_text, SETTINGS, SILENT)


def test_lines_have_classes_and_metrics(found: dict[str, Any]) -> None:
    text = "\n".join(multitask_report.lines(found))
    assert f"{found['panels'][TASK_LABELS[GENRE]]['values'][SHARED]['all']:.4f}" in text
    assert "classes: 2 of action, 4 of genre" in text


@pytest.mark.parametrize(
    ("low", "high", "users", "expected"),
    [
        (0.1, 0.3, 30, BETTER),
        (-0.3, -0.1, 30, WORSE),
        (-0.1, 0.3, 30, INCONCLUSIVE),
        (0.1, 0.3, MIN_USERS - 1, INCONCLUSIVE),
    ],
)
def test_conclusions_have_verdicts_and_intervals(low: float, high: float, users: int, expected: str) -> None:
    panel = gain_panel(low, high, users)
    panel["verdicts"] = multitask.verdicts(panel)
    sentences = list(multitask_report.conclusions({"panels": {"panel": panel}}))
    assert multitask_report.SHARING[expected] in sentences[0]
    assert f"{(low + high) / 2:+.4f} [{low:+.4f}, {high:+.4f}]" in sentences[0]
    assert expected in sentences[2]


def test_data_without_tasks_has_a_report_without_panels(tmp_path: Path) -> None:
    clicks = dataset_of([(n % 5, (n * 7) % 13, START_S + 600 * n) for n in range(60)])
    found = multitask.report(clicks, no_text, SETTINGS, SILENT)
    text = "\n".join(multitask_report.lines(found))
    assert "the action task is left out" in text
    assert "the genre task is left out" in text
    assert "no further task" in text
    multitask_report.draw(found, tmp_path / "none.png")
    assert image.imread(tmp_path / "none.png").shape[0] > 100


def test_figure_has_each_task_by_slice_and_the_gains_of_sharing(found: dict[str, Any]) -> None:
    panels = found["panels"]
    with axes_of(multitask_report.draw, found) as (*panel_axes, last):
        for axes, (title, panel) in zip(panel_axes, panels.items(), strict=True):
            assert (axes.get_title(), axes.get_ylabel()) == (title, panel["metric"])
            values = [[by_part[part] for part in SLICES_SHOWN] for by_part in panel["values"].values()]
            assert list(labeled_lines(axes)) == list(panel["values"])
            np.testing.assert_array_equal([y for _, y in labeled_lines(axes).values()], np.array(values, float))
        gains = [panel["gain"][panel["dedicated"]] for panel in panels.values()]
        by_slice = {
            part.replace("_", " "): {row: gain[part] for row, gain in enumerate(gains)} for part in SLICES_SHOWN
        }
        assert_gains_drawn(last, by_slice)
