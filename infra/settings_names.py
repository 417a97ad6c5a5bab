"""Names of settings in the environment and in files. Unknown names are refused: pydantic would ignore a misspelled one.

A setting of a table is `backbone.width`: in premiere.toml the key `width` of the table `backbone`, in the environment
`PREMIERE_BACKBONE__WIDTH`.
"""

import io
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError

from infra.errors import SettingsError

# A Kubernetes service whose name begins with `premiere` adds variables such as PREMIERE_SERVICE_HOST to every pod.
_SERVICE_VARIABLE: Final = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
ENV_PREFIX: Final = "PREMIERE_"
NESTED: Final = "__"  # in the environment, between a table and its field
_SERVICE_ADDRESS: Final = ("tcp://", "udp://", "sctp://")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + name.upper().replace(".", NESTED)


def as_text(value: object) -> str:
    """A value as in an environment variable. Secrets are not masked."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(str(v) for v in value) if isinstance(value, tuple | list) else str(value)


def check_names(names: Sequence[str], toml: Path, env: Path) -> None:
    """Check the names in both files and in the environment against the known `names`. Raises SettingsError."""
    variables = [variable(name) for name in names]
    try:
        _refuse_unknown(_paths(tomllib.loads(_text(toml))), names)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{toml} cannot be read: {error}.") from None
    in_file = dotenv_values(stream=io.StringIO(_text(env)))
    _refuse_unknown((name for name in in_file if name.startswith(ENV_PREFIX)), variables)
    _refuse_unknown(
        (name for name in os.environ if name.startswith(ENV_PREFIX) and not _is_of_a_service(name)), variables
    )


def _paths(content: dict[str, Any], table: str = "") -> Iterator[str]:
    """The names of all values in a TOML file."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{table}{name}.")
        else:
            yield table + name


def looks_like_a_service(variable: str) -> bool:
    """Whether an environment variable has the value of a Kubernetes service's address."""
    return os.environ.get(variable, "").startswith(_SERVICE_ADDRESS)


def reason_for_people(error: ValidationError) -> str:
    """The first problem as a sentence with the name of the setting."""
    first = error.errors()[0]
    name, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if looks_like_a_service(name) or looks_like_a_service(variable(name)):
        reason += ". Its value looks like a variable of a Kubernetes service: set enableServiceLinks to false"
    subject = f"Invalid value of the setting {name}" if name else "Settings contradict each other"
    return f"{subject}: {reason} (see `premiere settings --table`)."


def _is_of_a_service(variable: str) -> bool:
    return bool(_SERVICE_VARIABLE.search(variable)) or (variable.endswith("_PORT") and looks_like_a_service(variable))


def _text(file: Path) -> str:
    """The content of a settings file; empty if there is none. Raises SettingsError if it is no text file."""
    try:
        return file.read_text(encoding="utf-8") if file.exists() else ""
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None


def _refuse_unknown(names: Iterable[str], known: Sequence[str]) -> None:
    for name in sorted(set(names) - set(known)):
        close = get_close_matches(name, known, 1)
        raise SettingsError(f"Unknown setting {name}" + (f": did you mean {close[0]}?" if close else "."))
