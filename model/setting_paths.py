"""Names each field of the settings classes by one path, `backbone.width`, and reads and replaces values by it.

The same paths name settings in premiere.toml, in `premiere compare`, in manifests and in the record of changes. A class
below a root (`LearnerSettings`, `streaming.state.log_settings.LogSettings`) is a FieldGroup; fields of several groups
may stand in one table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

from model.setting_fields import FieldInfo, field_infos
from model.settings import (
    EvidenceSettings,
    LearnerSettings,
    NetworkSettings,
    ObjectiveSettings,
    OptimSettings,
    RankerSettings,
    SequenceSettings,
    StreamStateSettings,
)

Root = TypeVar("Root")


class FieldGroup(NamedTuple):
    """The fields of one settings class, the table that they stand in, and the attributes that lead from the root."""

    table: str
    settings_class: type
    attributes: tuple[str, ...] = ()


class SettingField(NamedTuple):
    """One field of a group."""

    path: str  # table and name: `backbone.width`
    group: FieldGroup
    name: str
    info: FieldInfo


MODEL_GROUPS: Final = (  # of LearnerSettings
    FieldGroup("learner", SequenceSettings, ("sequence",)),
    FieldGroup("learner", LearnerSettings),
    FieldGroup("backbone", NetworkSettings, ("sequence", "network")),
    FieldGroup("objective", ObjectiveSettings, ("sequence", "objective")),
    FieldGroup("optimizer", OptimSettings, ("sequence", "optim")),
    FieldGroup("ranker", RankerSettings, ("ranker",)),
    FieldGroup("memory", StreamStateSettings, ("stream_state",)),
    FieldGroup("evidence", EvidenceSettings, ("stream_state", "evidence")),
)


def setting_fields(groups: Sequence[FieldGroup]) -> Iterator[SettingField]:
    """All fields of the groups, those that follow another setting included."""
    for group in groups:
        for name, info in field_infos(group.settings_class).items():
            yield SettingField(f"{group.table}.{name}", group, name, info)


def value_at(root: Any, field: SettingField) -> Any:
    """The value of a field in an instance of its root class."""
    for attribute in field.group.attributes:
        root = getattr(root, attribute)
    return getattr(root, field.name)


def values_by_path(root: Any, groups: Sequence[FieldGroup]) -> dict[str, Any]:
    """All values as plain types: tuples become lists."""
    values = {field.path: value_at(root, field) for field in setting_fields(groups)}
    return {path: list(value) if isinstance(value, tuple) else value for path, value in values.items()}


def with_values(root: Root, groups: Sequence[FieldGroup], values: Mapping[str, Any]) -> Root:
    """A copy of `root` with other values by path; lists become tuples. Paths that no field has are ignored.

    Raises ValueError if values contradict each other.
    """
    for group in groups:
        own = {
            name: values[path]
            for name in field_infos(group.settings_class)
            if (path := f"{group.table}.{name}") in values
        }
        own = {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}
        root = _replaced(root, group.attributes, own)
    return root


def _replaced(settings: Any, attributes: Sequence[str], values: Mapping[str, Any]) -> Any:
    if not values:
        return settings
    if not attributes:
        return replace(settings, **values)
    return replace(settings, **{attributes[0]: _replaced(getattr(settings, attributes[0]), attributes[1:], values)})
