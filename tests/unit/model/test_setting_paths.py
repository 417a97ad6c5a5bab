"""Fields of the settings classes are read and replaced by path."""

from dataclasses import replace

import pytest

from model.setting_fields import field_infos
from model.setting_paths import MODEL_GROUPS, setting_fields, values_by_path, with_values
from model.settings import LearnerSettings, NetworkSettings

SETTINGS = LearnerSettings()


def test_each_field_has_its_own_path_and_a_description() -> None:
    fields = list(setting_fields(MODEL_GROUPS))
    assert len({field.path for field in fields}) == len(fields)
    assert all(field.info.meaning for field in fields)
    assert field_infos(NetworkSettings)["width"].change == "shape"
    assert field_infos(NetworkSettings)["dropout"].change == "live"


def test_values_round_trip() -> None:
    changed = with_values(
        SETTINGS, MODEL_GROUPS, {"ranker.hidden": [8, 4], "evidence.growth": 1.5, "learner.steps": 7, "unknown.x": 1}
    )
    assert (changed.ranker.hidden, changed.stream_state.evidence.growth, changed.sequence.steps) == ((8, 4), 1.5, 7)
    assert with_values(SETTINGS, MODEL_GROUPS, values_by_path(changed, MODEL_GROUPS)) == changed
    assert replace(changed, ranker=SETTINGS.ranker) != SETTINGS


@pytest.mark.parametrize(
    ("values", "message"), [({"backbone.heads": 3}, "multiple"), ({"backbone.tasks": ["next"]}, "action, genre")]
)
def test_contradictory_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_values(SETTINGS, MODEL_GROUPS, values)
