"""Every experiment command has a part on the reports page, which runs with the settings of the results."""

import pytest

from infra.cli import experiments
from infra.experiments import compare, scaling
from infra.experiments.reports import REPORT_PARTS
from model.settings import LearnerSettings
from tests.support.evaluation import SETTINGS, SILENT, checkerboard, no_text


def test_every_experiment_command_has_a_report_part() -> None:
    commands = {command.__name__ for command in experiments.COMMANDS}
    assert commands <= {name.split("-")[0] for name in REPORT_PARTS}


def test_compare_report_is_of_smallest_and_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "report", lambda _data, _encode, _settings, names, _log: {"names": names})
    found = REPORT_PARTS["compare"].run(None, no_text, SETTINGS, SILENT)
    sizes = list(scaling.sweep(list(scaling.DEFAULT_SIZES), LearnerSettings()))  # smallest first
    assert found["names"] == (sizes[0], sizes[-1])


def test_flops_report_is_about_the_titles_of_the_data() -> None:
    data = checkerboard(96)
    found = REPORT_PARTS["flops"].run(data, no_text, SETTINGS, SILENT)
    assert found["titles"] == len(data.titles)
