"""The settings that were in force at each offset of the log."""

from dataclasses import replace

import pytest

from model.settings import LearnerSettings, OptimSettings, SequenceSettings
from streaming.records import SettingsChange
from streaming.state.log_settings import LogSettings
from streaming.state.settings_history import MAX_CHANGES, all_values, extended, settings_at, shape_differences

MODEL, LOG = LearnerSettings(shortlist=7), LogSettings(capacity=300.0)
FASTER = replace(MODEL, sequence=SequenceSettings(optim=OptimSettings(lr=0.01)))


def test_first_change_holds_what_differs_from_the_defaults() -> None:
    (change,) = extended([], 0, None, MODEL, LOG)
    assert (change.position, change.values) == (0, {"learner.shortlist": 7, "learner.capacity": 300.0})
    assert extended([change], 50, 9, MODEL, LOG) == [change]  # nothing changed


def test_settings_at_each_position() -> None:
    changes = extended(extended([], 0, None, MODEL, LOG), 50, 9, FASTER, LOG)
    changes = extended(changes, 80, 12, FASTER, LogSettings())
    assert [(change.position, change.checked_at) for change in changes] == [(0, None), (50, 9), (80, 12)]
    assert changes[1].values == {"optimizer.lr": 0.01}
    assert settings_at(changes, 49) == (MODEL, LOG)
    assert settings_at(changes, 50) == settings_at(changes, 79) == (FASTER, LOG)
    assert settings_at(changes, 80) == (FASTER, LogSettings())


def test_old_changes_are_merged_and_their_offsets_are_unknown() -> None:
    changes: list[SettingsChange] = []
    for n in range(MAX_CHANGES + 3):
        changes = extended(changes, n, n, replace(MODEL, shortlist=10 + n), LOG)
    assert len(changes) == MAX_CHANGES
    assert settings_at(changes, MAX_CHANGES + 2)[0].shortlist == MAX_CHANGES + 12
    assert settings_at(changes, 3) == (replace(MODEL, shortlist=13), LOG)
    with pytest.raises(ValueError, match="offset 2"):
        settings_at(changes, 2)


def test_only_shape_settings_must_equal_those_of_a_checkpoint() -> None:
    saved = all_values(MODEL, LOG)
    assert shape_differences(saved, FASTER) == {}
    assert shape_differences(saved, replace(MODEL, seed=4)) == {"seed": MODEL.seed}
    del saved["backbone.width"]  # a checkpoint from before the setting existed has its default
    assert shape_differences(saved, MODEL) == {}
