"""The operator's settings reach the learner's settings."""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from infra.errors import SettingsError
from infra.learner_settings import check_checkpoint_settings, learner_settings, set_threads
from infra.settings import Settings
from model.settings import PRESETS, LearnerSettings, NetworkSettings
from streaming.state.log_settings import LogSettings
from streaming.state.settings_history import all_values


def test_model_size_setting_offers_every_preset() -> None:
    assert get_args(Settings.model_fields["model_size"].annotation) == tuple(PRESETS)


def test_default_model_size_is_the_default_network() -> None:
    assert learner_settings(Settings()).sequence.network == LearnerSettings().sequence.network == NetworkSettings()


def test_model_size_changes_only_the_network() -> None:
    small, large = (learner_settings(Settings(model_size=name, horizons=(0, 5))) for name in ("cpu", "10m"))
    network = small.sequence.network
    wider = replace(network, width=320, blocks=9, heads=5)
    assert large == replace(small, sequence=replace(small.sequence, network=wider))


def test_each_setting_reaches_the_learner() -> None:
    made = learner_settings(
        Settings(horizons=(0, 3, 10), max_titles=77, min_users_before_launch=4, filter_seen=False, seed=5)
    )
    assert made.sequence.network.horizons == (0, 3, 10)
    assert made.sequence.objective.target_windows == (1, 5, 10)  # a window per horizon, at least 5 events for a delay
    assert (made.stream_state.max_titles, made.stream_state.min_users_before_launch) == (77, 4)
    assert (made.repeats, made.seed) == (True, 5)
    assert learner_settings(Settings(filter_seen=True)).repeats is False


def test_threads_setting_limits_torch_threads() -> None:
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            set_threads(threads)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_checkpoint_of_another_shape_is_refused_by_the_name_of_the_setting() -> None:
    written, other = learner_settings(Settings()), learner_settings(Settings(model_history=50, horizons=(0, 5)))
    saved = {"settings": all_values(written, LogSettings())}
    check_checkpoint_settings(saved, written, "file:///checkpoints/3")
    with pytest.raises(SettingsError, match=r"/checkpoints/3 .* horizons = 0,3,10, model_history = 100\."):
        check_checkpoint_settings(saved, other, "file:///checkpoints/3")
    live = learner_settings(Settings(max_titles=7, filter_seen=False, optimizer={"lr": 0.1}))
    check_checkpoint_settings(saved, live, "file:///checkpoints/3")
