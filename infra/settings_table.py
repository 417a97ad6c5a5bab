"""The settings as text: the current values for people, and the table in the docs."""

from typing import Literal, get_args, get_origin, get_type_hints

from pydantic import AliasChoices, SecretStr

from infra.learner_settings import learner_settings, log_settings
from infra.masking import mask_url
from infra.model_settings import ALL_GROUPS, TABLES
from infra.settings import Settings
from infra.settings_names import as_text, variable
from model.setting_paths import SettingField, setting_fields
from model.settings import LearnerSettings
from streaming.state.log_settings import LogSettings
from streaming.state.settings_history import all_values


def masked_values(settings: Settings) -> dict[str, str]:
    """The current settings as text by name, with secrets masked."""
    model = all_values(learner_settings(settings), log_settings(settings))
    values = settings.values()
    values |= {path: value for path, value in model.items() if path in values}
    texts = {
        name: "" if v is None else str(v) if isinstance(v, SecretStr) else as_text(v) for name, v in values.items()
    }
    return {name: mask_url(text) for name, text in texts.items()}


def settings_table() -> str:
    """All settings as the Markdown table in docs/settings.md."""
    rows = ["| setting | environment | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        if name in TABLES:
            continue
        alias = field.validation_alias
        names = [variable(name)] + ([str(alias.choices[-1])] if isinstance(alias, AliasChoices) else [])
        default = "" if field.default is None else as_text(field.default)
        rows.append(f"| `{name}` | {', '.join(f'`{n}`' for n in names)} | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def model_settings_table() -> str:
    """The settings of the tables as the Markdown table in docs/settings.md."""
    defaults = all_values(LearnerSettings(), LogSettings())
    rows = ["| setting | default | values | change | meaning |", "|---|---|---|---|---|"]
    for field in setting_fields(ALL_GROUPS):
        if not field.info.follows:
            cells = field.path, as_text(defaults[field.path]) or "empty", _values(field)
            rows.append(f"| `{cells[0]}` | {cells[1]} | {cells[2]} | {field.info.change} | {field.info.meaning} |")
    return "\n".join(rows) + "\n"


def _values(field: SettingField) -> str:
    """The allowed values of a field."""
    if field.info.low is not None:
        return f"{field.info.low:g} to {field.info.high:g}"
    hint = get_type_hints(field.group.settings_class)[field.name]
    return ", ".join(get_args(hint)) if get_origin(hint) is Literal else "true, false" if hint is bool else "names"
