"""Experiment commands have the shared options besides their own, and print, write and draw their report."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from infra.cli.options import ExperimentOptions, Inputs, experiment_command
from infra.data.tables import DataError
from infra.output_files import OutputError


def lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"events {report['events']}"


def draw(report: dict[str, Any], path: Path) -> None:
    path.write_text(str(report["events"]))


def count_events(
    inputs: Inputs, factor: Annotated[int, typer.Argument()], plus: Annotated[int, typer.Option()] = 0
) -> tuple[ModuleType, dict[str, Any]]:
    """Count events."""
    module = ModuleType("experiment")
    vars(module).update(lines=lines, draw=draw)
    return module, {"events": factor * len(inputs.data) + plus, "repeats": inputs.settings.repeats}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """An app with one experiment command, in an empty folder with a small events file."""
    monkeypatch.chdir(tmp_path)
    Path("e.csv").write_text("user,item,ts\n" + "".join(f"u,t{n},{n}\n" for n in range(20)))
    app = typer.Typer()
    app.command()(experiment_command()(count_events))
    return app


def test_experiment_command_prints_writes_and_draws_report(app: typer.Typer) -> None:
    shared = ["--events", "e.csv", "--limit", "12", "--repeats", "--report", "r.json", "--figure", "f.png"]
    result = CliRunner().invoke(app, [*shared, "2", "--plus", "1"])
    assert (result.exit_code, result.output) == (0, "events 25\n")
    assert json.loads(Path("r.json").read_text()) == {"events": 25, "repeats": True}
    assert Path("f.png").read_text() == "25"


def test_unwritable_result_is_refused_before_the_dataset_is_read(app: typer.Typer) -> None:
    Path("file").touch()
    for option in ("--report", "--figure"):
        result = CliRunner().invoke(app, ["--events", "absent.csv", option, "file/r", "2"])
        assert isinstance(result.exception, OutputError)


def test_results_are_printed_before_a_file_fails(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.cli.options.check_writable", lambda *files: None)  # the folder vanished during the run
    result = CliRunner().invoke(app, ["--events", "e.csv", "--report", "gone/r.json", "2"])
    assert isinstance(result.exception, OutputError)
    assert result.output == "events 40\n"


def test_ratings_on_another_scale_are_read(app: typer.Typer) -> None:
    Path("e.csv").write_text("user,item,ts,rating\n" + "".join(f"u,t{n},{n},10\n" for n in range(20)))
    refused = CliRunner().invoke(app, ["--events", "e.csv", "2"])
    assert isinstance(refused.exception, DataError)
    assert "--rating-max 10" in str(refused.exception)
    assert CliRunner().invoke(app, ["--events", "e.csv", "--rating-max", "10", "2"]).output == "events 40\n"


def test_missing_argument_is_wrong_usage(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["--events", "e.csv"]).exit_code == 2


def test_command_may_leave_out_an_option_and_load_other_inputs() -> None:
    app = typer.Typer()

    def limit_of(options: ExperimentOptions) -> int | None:
        return options.limit

    def tell(limit: int | None) -> tuple[ModuleType, dict[str, Any]]:
        module = ModuleType("experiment")
        vars(module).update(lines=lines)
        return module, {"events": limit}

    app.command()(experiment_command(limit_of, without="figure")(tell))
    assert CliRunner().invoke(app, ["--limit", "12"]).output == "events 12\n"
    assert CliRunner().invoke(app, ["--figure", "f.png"]).exit_code == 2
