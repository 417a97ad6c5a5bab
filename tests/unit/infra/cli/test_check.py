"""`premiere check` prints what is taken and refused; its exit code tells whether the files can be used."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.cli.main import app


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREMIERE_DATA", raising=False)
    Path("e.csv").write_text("user,item,ts,rating\nu,a,1600000000,9\nu,b,1600000000000,8\n")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments])


def test_problems_are_printed_with_exit_code_1() -> None:
    result = run("--events", "e.csv")
    assert result.exit_code == 1
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["user", "id", "2", "0", "0", "0"] in rows
    assert ["rating", "rating", "0", "0", "0", "2"] in rows
    assert "row 2 with '1600000000000'" in result.stdout
    assert "--rating-max 10" in result.stdout


def test_valid_files_are_exit_code_0() -> None:
    Path("e.csv").write_text("user,item,ts,rating\nu,a,1600000000,9\n")
    assert run("--events", "e.csv", "--rating-max", "10").exit_code == 0


def test_report_as_json() -> None:
    report = json.loads(run("--events", "e.csv", "--json").stdout)
    assert report["valid"] is False
    assert [one["column"] for one in report["files"][0]["problems"]] == ["ts", "rating"]


def test_missing_files_are_one_sentence() -> None:
    for arguments in ([], ["--titles", "t.csv"]):
        result = run(*arguments)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert "--events" in line


def test_folder_of_the_data_setting_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Path("e.csv").rename("data/events.csv")
    Path("data/titles.csv").write_text("item,title\na,A\n")
    monkeypatch.setenv("PREMIERE_DATA", "data")
    assert len(json.loads(run("--json").stdout)["files"]) == 2
