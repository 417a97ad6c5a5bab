"""The experiment commands are registered with the shared options, and print and write their reports."""

import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.experiments import COMMANDS
from infra.cli.main import app
from infra.cli.options import ExperimentOptions


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.__name__ != "flops"])
def test_experiment_on_a_dataset_has_the_shared_options(command: Callable[..., None]) -> None:
    assert {field.name for field in fields(ExperimentOptions)} <= {*inspect.signature(command).parameters}


def test_all_experiments_are_commands() -> None:
    assert {*COMMANDS} <= {command.callback for command in app.registered_commands}


def test_flops_command_writes_its_report(tmp_path: Path) -> None:
    env = {"PREMIERE_DATA_DIR": str(tmp_path), "PREMIERE_THREADS": "1", "PREMIERE_MODEL_SIZE": "cpu"}
    report = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["flops", "--titles", "100", "--report", str(report)], env=env)
    assert result.exit_code == 0, result.output
    assert result.stdout
    assert json.loads(report.read_text())["titles"] == 100
