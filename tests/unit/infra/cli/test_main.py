"""Help, error messages and exit codes of the command line."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.testing import CliRunner

from infra.cli.main import app
from tests.support.paths import ROOT

cli = CliRunner()


@pytest.fixture(autouse=True)
def no_services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No broker and no Redis are set."""
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "PREMIERE_BOOTSTRAP_SERVERS", "REDIS_URL", "PREMIERE_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def test_every_command_has_help() -> None:
    assert app.registered_commands
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__, f"{command.callback.__name__} has no help"


def test_missing_setting_is_one_line_and_exit_code_2() -> None:
    result = cli.invoke(app, ["topics"])
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("premiere: ")
    assert "PREMIERE_BOOTSTRAP_SERVERS" in line


@pytest.mark.parametrize("arguments", [["run", "nothing"], ["fly"], ["topics", "--delete"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert cli.invoke(app, arguments).exit_code == 2


def test_settings_command_masks_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREMIERE_KAFKA_SASL_PASSWORD", "hush")
    monkeypatch.setenv("REDIS_URL", "redis://:hush@h:1/0")
    result = cli.invoke(app, ["settings"])
    assert result.exit_code == 0
    assert "hush" not in result.output
    assert "redis://:**********@h:1/0" in result.output


def test_topics_command_creates_and_lists_topics(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREMIERE_BOOTSTRAP_SERVERS", kafka)
    result = cli.invoke(app, ["topics", "--create"])
    assert result.exit_code == 0
    assert "user-events      8" in result.output
    assert "missing" not in result.output


def test_help_imports_no_heavy_library() -> None:
    script = "import sys, infra.cli.main; print({'torch', 'feast', 'bytewax', 'pydantic', 'pandas'} & set(sys.modules))"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert child.stdout == "set()\n"


DATASET_COMMANDS: Final = {
    *("demo", "produce", "check", "evaluate", "leave-one-out"),
    *("scaling", "coldstart", "staleness", "compare", "multitask"),
}


def test_every_command_that_reads_files_has_the_options_of_files() -> None:
    commands = typer.main.get_group(app).commands
    readers = {name for name, command in commands.items() if "--events" in _options(command)}
    assert readers == DATASET_COMMANDS
    for name in readers:
        assert {"--events", "--titles", "--text", "--rating-max"} <= _options(commands[name]), name


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def test_every_path_of_a_result_is_checked_before_the_run(tmp_path: Path) -> None:
    """Each command fails on its path, not on the missing dataset."""
    (tmp_path / "file").touch()
    bad, tried = str(tmp_path / "file" / "r"), 0
    for name, command in typer.main.get_group(app).commands.items():
        for option in _options(command) & {"--report", "--figure", "--ranks"}:
            values = ["x=1"] * sum(parameter.param_type_name == "argument" for parameter in command.params)
            data = ["--events", "absent.csv"] if "--events" in _options(command) else []
            result = cli.invoke(app, [name, *data, option, bad, *values])
            assert result.exit_code == 1, (name, option, result.output)
            (line,) = result.stderr.splitlines()
            assert line.startswith(f"premiere: {bad}"), (name, option, line)
            assert "cannot be written" in line
            tried += 1
    assert tried == 17


def test_data_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/premiere")):
        monkeypatch.setenv("PREMIERE_DATA_DIR", str(folder))
        result = cli.invoke(app, ["up"])
        (line,) = result.stderr.splitlines()
        assert (result.exit_code, line.endswith("Set PREMIERE_DATA_DIR.")) == (2, True)


def test_full_disk_of_the_output_is_one_sentence() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-P", "-m", "infra.cli.main", "settings"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "premiere: The output cannot be used: No space left on device."
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("user", ["", "x" * 257, "é" * 129], ids=["empty", "too long", "too many bytes"])
@pytest.mark.parametrize("command", [["recommend"], ["send-event"], ["erase-user"]], ids=lambda command: command[0])
def test_invalid_user_id_is_refused(command: list[str], user: str) -> None:
    result = cli.invoke(app, [*command, user, *(["t1"] if command == ["send-event"] else [])])
    assert result.exit_code == 2
    assert "1 to 256 bytes" in result.stderr
