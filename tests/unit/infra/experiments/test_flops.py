"""The FLOPs experiment: its report, its lines and its figure."""

import json
from pathlib import Path
from typing import Any

import pytest

from infra.experiments import flops
from infra.experiments.evaluate import write
from model.sequence.flops import PARTS, paper_flops
from model.settings import SequenceSettings, preset
from tests.support.figures import axes_of, labeled_lines, tick_labels


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return flops.report("cpu", SequenceSettings(), titles=3000)


def test_report_is_consistent(found: dict[str, Any], tmp_path: Path) -> None:
    write(found, tmp_path / "flops.json")
    read = json.loads((tmp_path / "flops.json").read_text())
    million = next(row for row in read["paper"]["rows"] if row["titles"] == 10**6)
    assert [million["full"], million["both"]] == pytest.approx([1.26e10, 3.567e8], rel=3e-3)
    assert million["factor"] == pytest.approx(35.4, abs=0.05)
    assert read["measured"] == pytest.approx(read["formula"], rel=1e-12)
    assert read["formula"]["all"] == sum(read["formula"][part] for part in PARTS)
    assert read["formula_full_softmax"]["horizon_head"] > read["formula"]["horizon_head"]
    assert read["paper_formula"]["full"] == paper_flops(blocks=2, width=64, events=100, titles=3000)
    assert list(read["sizes"]) == ["cpu", "2m", "10m", "50m", "200m", "1b"]
    assert read["sizes"]["cpu"]["all"] == read["formula"]["all"]


def test_report_lines_contain_every_number(found: dict[str, Any]) -> None:
    text = "\n".join(flops.lines(found))
    assert "1.263e+10" in text
    assert "3.567e+08" in text
    assert "35.4" in text
    assert f"{found['measured']['all']:.4g}" in text
    assert "1,015,218,624" in text


def test_too_large_network_is_not_counted() -> None:
    large = flops.report("1b", SequenceSettings(preset("1b")), titles=3000)
    assert large["measured"] is None
    assert large["formula"]["backbone"] == 22 * (66 * 2048**2 + 12 * 100 * 2048)
    assert "too large" in "\n".join(flops.lines(large))


def test_figure_has_flops_by_catalog_size_and_by_part(found: dict[str, Any]) -> None:
    with axes_of(flops.draw, found) as (left, right):
        curves = labeled_lines(left)
        for name, label in flops.OUTPUT_LAYERS.items():
            (first, last), (low, high) = curves[label][0, [0, -1]], curves[label][1, [0, -1]]
            assert (first, last) == (1e4, 1e7)
            rows = found["paper"]["rows"]
            assert (low, high) == pytest.approx((rows[0][name], rows[-1][name]))
        published = curves["published, read off figure 2"].T.tolist()
        assert published == [[titles, count] for (titles, _), count in flops.PUBLISHED.items()]
        bars = {bars.get_label(): [bar.get_height() for bar in bars] for bars in right.containers}
        keys = {
            "full softmax": "formula_full_softmax",
            "current, by formula": "formula",
            "current, counted": "measured",
        }
        assert bars == {label: [found[key][part] for part in (*PARTS, "all")] for label, key in keys.items()}
        assert tick_labels(right) == [*PARTS, "all"]
