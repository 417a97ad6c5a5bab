"""The results command on small data: which parts are run, and what the pages contain."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib import image

from infra.data.datasets import Dataset
from infra.experiments import coldstart, results, results_page
from infra.experiments.reports import REPORT_PARTS
from tests.support.evaluation import SETTINGS, checkerboard


@pytest.fixture(scope="module")
def data() -> Dataset:
    return checkerboard(320)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    path = tmp_path_factory.mktemp("data") / "events.csv"
    rows = [data.event(k) for k in range(len(data))]
    pd.DataFrame([(e.user, e.title, e.ts // 1000) for e in rows], columns=["user", "item", "ts"]).to_csv(path)
    return path


def run(events: Path, folder: Path, *more: str) -> dict[str, Any]:
    """Run the command, and return the content of the parts' files by name."""
    where = ["--events", str(events), "--folder", str(folder / "files"), "--page", str(folder / "docs" / "page.md")]
    results.main([*where, *more], SETTINGS)
    return {file.name: json.loads(file.read_text()) for file in sorted((folder / "files").iterdir())}


def test_only_missing_parts_are_run_and_the_page_has_their_results(events: Path, tmp_path: Path) -> None:
    parts = "--only", "headline", "--only", "ablations-replay", "--only", "retraining"
    first = run(events, tmp_path, *parts, "--limit", "192")
    assert list(first) == ["ablations-replay.json", "headline.json", "retraining.json"]
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "files").iterdir()}
    (tmp_path / "files" / "headline.json").unlink()  # as if the run had been interrupted before this part
    resumed = run(events, tmp_path, *parts, "--limit", "192")
    kept = [file.name for file, at in written.items() if file.stat().st_mtime_ns == at]
    assert sorted(kept) == ["ablations-replay.json", "retraining.json"]
    assert resumed["headline.json"]["result"]["mrr"] == first["headline.json"]["result"]["mrr"]
    page = (tmp_path / "docs" / "page.md").read_text()
    mrr = first["headline.json"]["result"]["mrr"]
    assert f"| Premiere | {results_page.decimal(mrr['full']['all'])} |" in page
    for word in ("no replay", "Batch retraining", "192 |", "page-mrr.png", "page-ablations.png"):
        assert word in page
    for name in ("mrr", "ablations", "retraining"):
        picture = image.imread(tmp_path / "docs" / f"page-{name}.png")
        assert picture.std() > 0.01  # something is drawn


def test_reports_have_their_own_page_and_leave_the_other_unchanged(events: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("unchanged")
    files = run(events, tmp_path, "--only", "flops", "--only", "coldstart", "--limit", "128")
    assert list(files) == ["coldstart.json", "flops.json"]
    page = (tmp_path / "docs" / results.REPORTS_PAGE).read_text()
    for line in coldstart.lines(files["coldstart.json"]["result"]):
        assert line.rstrip() in page
    assert page.index(REPORT_PARTS["flops"].title) < page.index(REPORT_PARTS["coldstart"].title)
    for name in ("flops", "coldstart"):
        assert f"(reports-{name}.png)" in page
        assert image.imread(tmp_path / "docs" / f"reports-{name}.png").std() > 0.01
    assert (tmp_path / "docs" / "page.md").read_text() == "unchanged"


def test_changed_inputs_run_a_part_again(events: Path, tmp_path: Path) -> None:
    small = run(events, tmp_path, "--only", "headline", "--limit", "128")
    large = run(events, tmp_path, "--only", "headline")
    assert small["headline.json"]["data"]["events"] == 128
    assert large["headline.json"]["data"]["events"] == 320
    assert large["headline.json"]["result"]["report"]["scored"] == 256
