"""FLOPs a training token: the published numbers, and a formula that equals what a real step was counted to do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from infra.experiments import flops as costs
from infra.experiments.evaluate import write
from model.sequence.flops import PARTS, TrainingStep, measured, own, paper
from model.sequence.model import SequenceSettings
from model.sequence.network import NetworkSettings, preset
from tests.support.learner import SEQUENCE

PAPER = {"blocks": 6, "width": 1024, "events": 512}


def test_the_formula_gives_the_published_numbers_back() -> None:
    full, both = paper(**PAPER, titles=1e6), paper(**PAPER, titles=1e6, sampled=0.01, d_out=128)
    assert full == pytest.approx(1.26e10, rel=3e-3)
    assert both == pytest.approx(3.567e8, rel=3e-4)
    assert full / both == pytest.approx(35.4, abs=0.05)
    wide = paper(**PAPER, titles=1e7) / paper(**PAPER, titles=1e7, sampled=0.01, d_out=128)
    assert wide == pytest.approx(249, abs=0.5)


def test_sampling_is_what_pays_at_a_million_titles_and_the_head_adds_at_ten() -> None:
    sampled, projected = paper(**PAPER, titles=1e6, sampled=0.01), paper(**PAPER, titles=1e6, d_out=128)
    assert [sampled, projected] == pytest.approx([4.63e8, 1.88e9], rel=2e-3)
    assert paper(**PAPER, titles=1e7, sampled=0.01) == pytest.approx(1.569e9, rel=1e-3)


@pytest.mark.parametrize("horizons", [(0,), (0, 2)])
@pytest.mark.parametrize("shape", [SEQUENCE.network, replace(SEQUENCE.network, width=24, blocks=3, heads=3, d_out=5)])
def test_a_real_step_does_exactly_what_the_formula_says(shape: NetworkSettings, horizons: tuple[int, ...]) -> None:
    objective = replace(SEQUENCE.objective, windows=tuple(range(1, len(horizons) + 1)), negatives=37)
    settings = replace(SEQUENCE, network=replace(shape, horizons=horizons), objective=objective)
    found = measured(settings, titles=50)
    assert found.step.tokens == 8 * shape.history
    assert (found.step.rows > found.step.tokens) == (len(horizons) > 1)
    assert found.step.titles <= 50
    assert found.parts == pytest.approx(own(settings.network, found.step), rel=1e-12)


def test_the_default_step_too() -> None:
    settings = SequenceSettings()
    found = measured(settings, titles=2000)
    assert found.parts == pytest.approx(own(settings.network, found.step), rel=1e-12)
    assert sum(found.parts.values()) < own(settings.network, TrainingStep(800, 800, 2000, 10**6))["decoder"]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return costs.report("cpu", SequenceSettings(), titles=3000)


def test_the_report_says_it_all_and_adds_up(found: dict[str, Any], tmp_path: Path) -> None:
    write(found, tmp_path / "flops.json")
    read = json.loads((tmp_path / "flops.json").read_text())
    million = next(one for one in read["paper"]["rows"] if one["titles"] == 10**6)
    assert [million["full"], million["both"]] == pytest.approx([1.26e10, 3.567e8], rel=3e-3)
    assert million["times"] == pytest.approx(35.4, abs=0.05)
    assert read["measured"] == pytest.approx(read["own"], rel=1e-12)
    assert read["own"]["all"] == sum(read["own"][part] for part in PARTS)
    assert read["own_full_softmax"]["decoder"] > read["own"]["decoder"]
    assert read["by_the_papers_formula"]["full"] == paper(blocks=2, width=64, events=100, titles=3000)
    assert list(read["sizes"]) == ["cpu", "2m", "10m", "50m", "200m", "1b"]
    assert read["sizes"]["cpu"]["all"] == read["own"]["all"]


def test_the_table_names_every_number(found: dict[str, Any]) -> None:
    text = "\n".join(costs.lines(found))
    assert "1.263e+10" in text
    assert "3.567e+08" in text
    assert "35.4" in text
    assert f"{found['measured']['all']:.4g}" in text
    assert "1,015,218,624" in text


def test_a_network_too_large_to_be_run_is_counted_by_formula_alone() -> None:
    large = costs.report("1b", SequenceSettings(preset("1b")), titles=3000)
    assert large["measured"] is None
    assert large["own"]["backbone"] == 22 * (66 * 2048**2 + 12 * 100 * 2048)
    assert "too large" in "\n".join(costs.lines(large))


def test_the_figure_is_a_picture(found: dict[str, Any], tmp_path: Path) -> None:
    costs.draw(found, tmp_path / "flops.png")
    pixels = image.imread(tmp_path / "flops.png")
    assert pixels.shape[0] > 300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20  # not a blank page
