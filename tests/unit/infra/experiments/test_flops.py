"""FLOPs per training token: published numbers, and formulas that equal the count of a real training step."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from infra.experiments import flops
from infra.experiments.evaluate import write
from model.sequence.flops import PARTS, TrainingStep, layer_flops, measured_flops, paper_flops
from model.sequence.model import SequenceSettings
from model.sequence.network import NetworkSettings, preset
from tests.support.learner import SEQUENCE

PAPER = {"blocks": 6, "width": 1024, "events": 512}


def test_paper_formula_reproduces_published_flops() -> None:
    full, both = paper_flops(**PAPER, titles=1e6), paper_flops(**PAPER, titles=1e6, sampled=0.01, d_out=128)
    assert full == pytest.approx(1.26e10, rel=3e-3)
    assert both == pytest.approx(3.567e8, rel=3e-4)
    assert full / both == pytest.approx(35.4, abs=0.05)
    wide = paper_flops(**PAPER, titles=1e7) / paper_flops(**PAPER, titles=1e7, sampled=0.01, d_out=128)
    assert wide == pytest.approx(249, abs=0.5)


def test_sampled_softmax_saves_more_than_narrow_head() -> None:
    sampled, projected = paper_flops(**PAPER, titles=1e6, sampled=0.01), paper_flops(**PAPER, titles=1e6, d_out=128)
    assert [sampled, projected] == pytest.approx([4.63e8, 1.88e9], rel=2e-3)
    assert paper_flops(**PAPER, titles=1e7, sampled=0.01) == pytest.approx(1.569e9, rel=1e-3)


@pytest.mark.parametrize("horizons", [(0,), (0, 2)])
@pytest.mark.parametrize("shape", [SEQUENCE.network, replace(SEQUENCE.network, width=24, blocks=3, heads=3, d_out=5)])
def test_formula_equals_counted_flops_of_a_step(shape: NetworkSettings, horizons: tuple[int, ...]) -> None:
    objective = replace(SEQUENCE.objective, target_windows=tuple(range(1, len(horizons) + 1)), negatives=37)
    settings = replace(SEQUENCE, network=replace(shape, horizons=horizons), objective=objective)
    found = measured_flops(settings, titles=50)
    assert found.step.tokens == 8 * shape.max_history
    assert (found.step.rows > found.step.tokens) == (len(horizons) > 1)
    assert found.step.titles <= 50
    assert found.parts == pytest.approx(layer_flops(settings.network, found.step), rel=1e-12)


def test_formula_equals_counted_flops_of_default_settings() -> None:
    settings = SequenceSettings()
    found = measured_flops(settings, titles=2000)
    assert found.parts == pytest.approx(layer_flops(settings.network, found.step), rel=1e-12)
    assert (
        sum(found.parts.values()) < layer_flops(settings.network, TrainingStep(800, 800, 2000, 10**6))["horizon_head"]
    )


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


def test_figure_is_drawn(found: dict[str, Any], tmp_path: Path) -> None:
    flops.draw(found, tmp_path / "flops.png")
    pixels = image.imread(tmp_path / "flops.png")
    assert pixels.shape[0] > 300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20  # not a blank page
