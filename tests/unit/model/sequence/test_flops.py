"""FLOPs per training token: published numbers, and a formula that equals the count of a real training step."""

from dataclasses import replace

import pytest

from model.sequence.flops import TrainingStep, layer_flops, measured_flops, paper_flops
from model.settings import NetworkSettings, SequenceSettings
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
