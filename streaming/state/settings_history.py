"""Records which settings of the model and the learner were in force from which offset of the learner log on.

Training is a function of the log and the settings. A setting may change when the learner is restarted; the checkpoint
that it continues from tells the offset. A version carries the list of changes. So reprocessing the log with the same
changes at the same offsets gives the same bits.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from model.setting_paths import MODEL_GROUPS, setting_fields, values_by_path, with_values
from model.settings import LearnerSettings
from streaming.records import SettingsChange
from streaming.state.log_settings import LOG_GROUPS, LogSettings

MAX_CHANGES: Final = 64  # that are remembered; older ones are merged into the first
# The settings that records of the log change: `TextSpace`.
LOGGED: Final = frozenset(field.path for field in setting_fields(MODEL_GROUPS) if field.info.change == "logged")


def all_values(model: LearnerSettings, log: LogSettings) -> dict[str, Any]:
    """All values by path, in plain types."""
    return values_by_path(log, LOG_GROUPS) | values_by_path(model, MODEL_GROUPS)


def settings_at(changes: Sequence[SettingsChange], position: int) -> tuple[LearnerSettings, LogSettings]:
    """The settings with which the record at offset `position` was learned. Raises ValueError if they are unknown."""
    if not changes or position < changes[0].position:
        raise ValueError(f"the settings at offset {position} are no longer known")
    values: dict[str, Any] = {}
    for change in changes:
        if change.position <= position:
            values |= change.values
    return with_values(LearnerSettings(), MODEL_GROUPS, values), with_values(LogSettings(), LOG_GROUPS, values)


def extended(
    changes: Sequence[SettingsChange], position: int, checked_at: int | None, model: LearnerSettings, log: LogSettings
) -> list[SettingsChange]:
    """The changes, with another one at `position` if these settings are not the last ones."""
    last = settings_at(changes, max(position, changes[-1].position)) if changes else (LearnerSettings(), LogSettings())
    known, current = all_values(*last), all_values(model, log)
    values = {path: value for path, value in current.items() if known[path] != value and path not in LOGGED}
    if changes and not values:
        return list(changes)
    made = [*changes, SettingsChange(position=position, checked_at=checked_at, values=values)]
    while len(made) > MAX_CHANGES:
        first, second, *rest = made
        made = [SettingsChange(position=second.position, values=first.values | second.values), *rest]
    return made


def shape_differences(saved: Mapping[str, Any], model: LearnerSettings) -> dict[str, Any]:
    """The saved values of the settings that must not change, and differ. `saved` are a checkpoint's values by path.

    A value that the checkpoint does not have is the default: that is the behavior from before the setting existed.
    """
    default, current = (values_by_path(one, MODEL_GROUPS) for one in (LearnerSettings(), model))
    values = {
        field: saved.get(field.path, default[field.path])
        for field in setting_fields(MODEL_GROUPS)
        if field.info.change == "shape"
    }
    differing: dict[str, Any] = {}
    for field, value in values.items():
        if value != current[field.path]:
            differing.setdefault(field.info.follows or field.path, value)  # other fields that follow it are derived
    return dict(sorted(differing.items()))
