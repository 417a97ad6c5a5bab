"""The settings as text: the current values for people, and the table in the docs."""

from pydantic import AliasChoices, SecretStr

from infra.masking import mask_url
from infra.settings import ENV_PREFIX, Settings, as_text


def masked_values(settings: Settings) -> dict[str, str]:
    """The current settings as text by name, with secrets masked."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    texts = {
        name: "" if v is None else str(v) if isinstance(v, SecretStr) else as_text(v) for name, v in values.items()
    }
    return {name: mask_url(text) for name, text in texts.items()}


def settings_table() -> str:
    """All settings as the Markdown table in docs/settings.md."""
    rows = ["| setting | environment | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = [f"{ENV_PREFIX}{name.upper()}"] + ([str(alias.choices[-1])] if isinstance(alias, AliasChoices) else [])
        default = "" if field.default is None else as_text(field.default)
        rows.append(f"| `{name}` | {', '.join(f'`{n}`' for n in names)} | {default} | {field.description} |")
    return "\n".join(rows) + "\n"
