"""Network presets: their parameter counts, and a training step of the larger ones."""

from dataclasses import replace

import pytest
import torch

from model.sequence.network import Network
from model.sequence.objective import train_step
from model.settings import PRESETS, ObjectiveSettings, preset
from tests.support.objective import generator, training_setup, windows_of


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "cpu"])
def test_preset_backbone_has_the_parameters_of_its_name(name: str) -> None:
    with torch.device("meta"):
        network = Network(preset(name))
    parameters = float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert sum(p.numel() for p in network.backbone.parameters()) == pytest.approx(parameters, rel=0.03)
    assert network.horizon_head.query_projection.out_features == max(64, network.settings.width // 8)


@pytest.mark.parametrize("name", ["2m", "50m"])
def test_large_preset_takes_a_training_step(name: str) -> None:
    shape = replace(preset(name, (0,)), d_text=6, d_id=8)
    network, optimizers, titles = training_setup(40, shape)
    before = {key: value.clone() for key, value in network.backbone.named_parameters()}
    settings = ObjectiveSettings(negatives=16, target_windows=(1,))
    report = train_step(network, optimizers, titles, windows_of([list(range(12))]), settings, generator())
    assert report.positions == 12
    assert 0 < report.loss < 50
    assert not report.skipped
    assert all(not torch.equal(value, before[key]) for key, value in network.backbone.named_parameters())
