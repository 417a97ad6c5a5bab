"""The settings of the model and the learner as tables of the operator's settings: `[backbone]` with `width`.

The fields are those of the settings classes (`model.settings`, `streaming.state.log_settings`). A value that is not set
keeps its default, or that of `model_size`. Importing this module imports no PyTorch.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic_settings import BaseSettings, NoDecode

from model.setting_fields import FieldInfo, field_infos
from model.setting_paths import MODEL_GROUPS, FieldGroup, setting_fields, value_at, with_values
from model.settings import LearnerSettings
from streaming.state.log_settings import LOG_GROUPS, LogSettings

GROUPS: Final[Mapping[type, tuple[FieldGroup, ...]]] = {LogSettings: LOG_GROUPS, LearnerSettings: MODEL_GROUPS}
ALL_GROUPS: Final = (*LOG_GROUPS, *MODEL_GROUPS)
Root = TypeVar("Root", LearnerSettings, LogSettings)


def _split_commas(value: object) -> object:
    return value.strip("[]").split(",") if isinstance(value, str) else value


def _optional(hint: Any, info: FieldInfo) -> Any:
    """The type of a field that may be left out, with its bounds."""
    bounds: dict[str, Any] = {} if info.low is None else {"ge": info.low, "le": info.high}
    if get_origin(hint) is tuple:
        entries = tuple(Annotated[entry, Field(**bounds)] if entry is not ... else ... for entry in hint.__args__)
        return Annotated[tuple[entries] | None, NoDecode, BeforeValidator(_split_commas)]  # type: ignore[valid-type]
    return Annotated[hint, Field(**bounds)] | None


def _table(name: str) -> type[BaseModel]:
    columns: dict[str, Any] = {}
    for group in (one for one in ALL_GROUPS if one.table == name):
        hints = get_type_hints(group.settings_class)
        for field, info in field_infos(group.settings_class).items():
            if not info.follows:
                columns[field] = _optional(hints[field], info), Field(default=None, description=info.meaning)
    return create_model(
        name.capitalize(), __config__=ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False), **columns
    )


TABLES: Final = {name: _table(name) for name in dict.fromkeys(group.table for group in ALL_GROUPS)}
_TABLE_FIELDS: Final[dict[str, Any]] = {name: (table, Field(default=table())) for name, table in TABLES.items()}
ModelTables: Final = create_model("ModelTables", __base__=BaseSettings, **_TABLE_FIELDS)


def with_tables(root: Root, tables: object) -> Root:
    """`root` with the values that are set in the tables, which are attributes of `tables`.

    Raises ValueError if values contradict each other.
    """
    values = {f"{name}.{field}": value for name in TABLES for field, value in getattr(tables, name)}
    return with_values(root, GROUPS[type(root)], {path: value for path, value in values.items() if value is not None})


def with_setting(settings: LearnerSettings, name: str, text: str) -> LearnerSettings:
    """`settings` with another value of one setting: `backbone.width`, or a number such as `model_history`.

    Raises KeyError for an unknown name, ValueError for an invalid value.
    """
    found = [field for field in setting_fields(MODEL_GROUPS) if name == (field.info.follows or field.path)]
    if not found or (found[0].info.follows and type(value_at(settings, found[0])) is not int):
        raise KeyError(name)
    values = {
        field.path: int(text)
        if field.info.follows
        else getattr(TABLES[field.group.table](**{field.name: text}), field.name)
        for field in found
    }
    return with_values(settings, MODEL_GROUPS, values)
