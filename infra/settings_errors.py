"""Turns an invalid setting into one sentence: its name, where the value comes from, and what it must be.

The value itself is not repeated: it may be a secret.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values
from pydantic import ValidationError

from infra.settings_names import ENV_PREFIX, has_service_address, toml_names, variable

REASONS: Final = {  # kind of error in pydantic -> what the value must be
    "int_parsing": "it must be a whole number",
    "int_type": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "int_parsing_size": "it is too large",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "finite_number": "it must be a finite number",
    "bool_parsing": "it must be true or false",
    "bool_type": "it must be true or false",
    "string_type": "it must be a text in quotes",
    "tuple_type": "it must be a list",
    "literal_error": "it must be {expected}",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "too_long": "it must have at most {max_length} entries",
    "string_too_long": "it must have at most {max_length} characters",
    "missing": "it must have more entries",  # of a list with a fixed number of entries, the only required ones
}


def reason_for_people(error: ValidationError, given: Sequence[str], toml: Path, env: Path) -> str:
    """The first problem as a sentence. `given` are the settings that the command line sets."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if not isinstance(part, int)]
    if not path:
        return f"Settings contradict each other: {plain_reason(first)}."
    name = ".".join(path)
    name = name.removeprefix(ENV_PREFIX).lower() if name.startswith(ENV_PREFIX) else name
    where, reason = _source(name, given, toml, env), plain_reason(first)
    if has_service_address(variable(name)):
        reason += ". Its value looks like a variable of a Kubernetes service: set enableServiceLinks to false"
    return f"Invalid value of the setting {name}{where}: {reason} (see `premiere settings --table`)."


def plain_reason(first: Any) -> str:
    """What the value must be, from one of pydantic's error details."""
    if (reason := REASONS.get(first["type"])) is not None:
        bounds = first.get("ctx", {}).items()
        return reason.format(**{name: f"{v:g}" if isinstance(v, float) else v for name, v in bounds})
    return str(first["msg"]).removeprefix("Value error, ").rstrip(".")


def _source(name: str, given: Sequence[str], toml: Path, env: Path) -> str:
    """Where a setting's value comes from, in the order of precedence; empty if it is unknown."""
    names = variable(name), name.upper()  # the second is the name without the prefix
    if name in given:
        return ", which the command sets"
    for one in names:
        if os.environ.get(one):
            return f", from the environment variable {one}"
    in_file = {key.upper(): value for key, value in dotenv_values(env).items()}
    for one in names:
        if in_file.get(one):
            return f", from {one} in {env}"
    return f", from {toml}" if name in toml_names(toml) else ""
