"""The report and the table of the scale benchmark, on a catalog that is measured in seconds."""

import json
from pathlib import Path

import pytest

from benchmarks.scale import MEASURES, main

TITLES, USERS = 600, 40


def test_report_holds_the_costs_of_product_and_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scale.json"
    main(["--titles", str(TITLES), "--users", str(USERS), "--rounds", "1", "--report", str(path)])
    report = json.loads(path.read_text())
    product = report["titles"][str(TITLES)]
    assert set(product) == {*MEASURES, "resident_mib", "dense"}
    assert set(product["dense"]) == {*MEASURES, "resident_mib"}
    assert all(value > 0 for costs in (product, product["dense"]) for name, value in costs.items() if name != "dense")
    assert product["resident_mib"] == max(product["learn_resident_mib"], product["publish_resident_mib"])
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(MEASURES)
