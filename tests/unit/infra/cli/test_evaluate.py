"""The evaluation commands print their progress and write their reports."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.main import app

EVENTS = 40


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a command for a small dataset, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREMIERE_DATA_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PREMIERE_THREADS", "1")
    rows = (f"u{n % 5},t{n % 8},{1_700_000_000 + 3600 * n}\n" for n in range(EVENTS))
    Path("events.csv").write_text("user,item,ts\n" + "".join(rows))
    Path("titles.csv").write_text("item,title\n" + "".join(f"t{n},Title {n}\n" for n in range(8)))
    return ["--events", "events.csv", "--titles", "titles.csv", "--report", "report.json"]


def test_evaluate_writes_report_and_ranks(files: list[str]) -> None:
    result = CliRunner().invoke(app, ["evaluate", *files, "--limit", "30", "--repeats", "--ranks", "ranks.csv"])
    assert result.exit_code == 0, result.output
    report = json.loads(Path("report.json").read_text())
    assert (report["events"], report["settings"]["repeats"]) == (30, True)
    assert "30 events" in result.stdout
    rows = list(csv.DictReader(Path("ranks.csv").read_text().splitlines()))
    assert len(rows) == report["scored"] == 24  # the first fifth is not scored


def test_leave_one_out_writes_report(files: list[str]) -> None:
    result = CliRunner().invoke(app, ["leave-one-out", *files, "--minutes", "0.01"])
    assert result.exit_code == 0, result.output
    report = json.loads(Path("report.json").read_text())
    assert (report["events"], report["users"], report["titles"]) == (EVENTS, 5, 8)
    assert report["settings"]["epochs"]["max_seconds"] == pytest.approx(0.6)
