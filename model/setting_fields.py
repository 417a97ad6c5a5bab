"""Fields of settings classes: default, meaning, bounds, and what a change means for a model that has learned already.

A `live` field may change: the learner takes the new value over at its next start, at the log position of the checkpoint
that it continues from. A `shape` field determines the arrays of a checkpoint, or how they are read: a checkpoint with
another value is refused. A `logged` field is determined by the learner log, and saved in checkpoints. A field that
`follows` another setting, the log or the contract has no setting of its own.

The module imports no PyTorch and no third-party package, because commands read the settings before they need a model.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

_KEY: Final = "setting"  # in a field's metadata


@dataclass(frozen=True)
class FieldInfo:
    """What is known of a field besides its type and default."""

    meaning: str
    change: Literal["live", "shape", "logged"]
    low: float | None = None  # smallest value; of each entry, if the field is a list
    high: float | None = None  # largest value
    follows: str = ""  # the setting, or other source, that determines the value; empty: a setting of its own


def live(default: Any, meaning: str, low: float | None = None, high: float | None = None, *, follows: str = "") -> Any:
    """A field whose change takes effect at the learner's next start."""
    return field(default=default, metadata={_KEY: FieldInfo(meaning, "live", low, high, follows)})


def shape(default: Any, meaning: str, low: float | None = None, high: float | None = None, *, follows: str = "") -> Any:
    """A field that must equal that of the checkpoint."""
    return field(default=default, metadata={_KEY: FieldInfo(meaning, "shape", low, high, follows)})


def logged(default: Any, meaning: str) -> Any:
    """A field that the learner log determines; the default holds until the log has a value."""
    return field(default=default, metadata={_KEY: FieldInfo(meaning, "logged", follows="learner log")})


def field_infos(settings_class: Any) -> dict[str, FieldInfo]:
    """The described fields of a settings class by name; groups of settings in it are left out."""
    return {one.name: one.metadata[_KEY] for one in fields(settings_class) if _KEY in one.metadata}


def require_order(table: str, settings: Any, lower: str, upper: str) -> None:
    """Raises ValueError if the field `lower` of a table is more than its field `upper`."""
    low, high = getattr(settings, lower), getattr(settings, upper)
    if low > high:
        raise ValueError(f"{table}.{lower} {low} is more than {table}.{upper} {high}")
