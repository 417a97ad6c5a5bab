"""The evaluation commands print their progress and write their reports."""

import csv
import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.evaluate import EvaluationProgress
from infra.cli.main import app
from model.metrics.ranking import PrequentialMetrics

EVENTS = 40


def rankings(*ranks: float) -> dict[str, PrequentialMetrics]:
    found = {"full": PrequentialMetrics(), "empty": PrequentialMetrics()}
    for rank in ranks:
        found["full"].add(rank, 0, 0)
    return found


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


def test_progress_has_counts_and_mrr_of_variants_with_scores(capsys: pytest.CaptureFixture[str]) -> None:
    EvaluationProgress(interval=0)(1000, 4000, rankings(2, math.inf))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split()[:3] == ["1,000", "of", "4,000"]
    assert err.split()[-2:] == ["full", "0.2500"]


def test_progress_is_printed_at_intervals_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    progress = EvaluationProgress(interval=3600)
    for done in (1, 2, 3):
        progress(done, 3, rankings(1))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split()[:4] == ["3", "of", "3", "0"]  # 0 s left


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
