"""The sizes of the model: what each promises, and that a setting brings it to the learner."""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from infra.run.learn import learner_settings
from infra.settings import Settings
from model.learner import LearnerSettings
from model.sequence.backbone import PRESETS
from model.sequence.network import Network, NetworkSettings, preset
from model.sequence.objective import ObjectiveSettings, train_step
from tests.support.objective import generator, learner, windows_of


def test_the_setting_offers_every_size() -> None:
    assert get_args(Settings.model_fields["model"].annotation) == tuple(PRESETS)


def test_by_default_the_network_is_what_it_was() -> None:
    assert learner_settings(Settings()).sequence.network == LearnerSettings().sequence.network == NetworkSettings()


def test_the_learner_gets_the_size_that_is_set_and_nothing_else_changes() -> None:
    small, large = (learner_settings(Settings(model=name, horizons=(0, 5))) for name in ("cpu", "10m"))
    network = small.sequence.network
    wider = replace(network, width=320, blocks=9, heads=5)
    assert large == replace(small, sequence=replace(small.sequence, network=wider))


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "cpu"])
def test_a_network_has_the_parameters_that_its_name_promises_without_embeddings_and_decoder(name: str) -> None:
    with torch.device("meta"):
        network = Network(preset(name))
    promised = float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert sum(p.numel() for p in network.backbone.parameters()) == pytest.approx(promised, rel=0.03)
    assert network.horizon_head.head.out_features == max(64, network.settings.width // 8)


@pytest.mark.parametrize("name", ["2m", "50m"])
def test_a_large_network_takes_a_training_step(name: str) -> None:
    shape = replace(preset(name, (0,)), d_text=6, d_id=8)
    network, optimisers, titles = learner(40, shape)
    before = {key: value.clone() for key, value in network.backbone.named_parameters()}
    settings = ObjectiveSettings(negatives=16, windows=(1,))
    report = train_step(network, optimisers, titles, windows_of([list(range(12))]), settings, generator())
    assert report.positions == 12
    assert 0 < report.loss < 50
    assert not report.skipped
    assert all(not torch.equal(value, before[key]) for key, value in network.backbone.named_parameters())
