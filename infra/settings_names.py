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

from dotenv.parser import parse_stream
from pydantic import SecretStr

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
    _refuse_unknown(toml_names(toml), names, ".")
    given = [*_variables_in(env), *(name for name in os.environ if not _is_of_a_service(name))]
    upper = [name.upper() for name in given]  # case does not matter in the environment
    _refuse_unknown((name for name in upper if name.startswith(ENV_PREFIX)), variables, NESTED)


def _variables_in(env: Path) -> list[str]:
    """The names in a `.env` file. Raises SettingsError for a line that is none: a reader would ignore it."""
    found = []
    for binding in parse_stream(io.StringIO(_text(env))):
        line = f"{env} cannot be read: line {binding.original.line + binding.original.string[:-1].count(chr(10))}"
        if binding.error:
            raise SettingsError(f"{line} is not NAME=value.")
        if binding.key is not None:
            if binding.value is None and binding.key.startswith(ENV_PREFIX):
                raise SettingsError(f"{line} gives {binding.key} no value: write NAME=value.")
            found.append(binding.key)
    return found


def _paths(content: dict[str, Any], table: str = "") -> Iterator[str]:
    """The names of all values in a TOML file."""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from _paths(value, f"{table}{name}.")
        elif isinstance(value, dict):
            yield f"{table}{name}."  # an empty table
        else:
            yield table + name


def has_service_address(variable: str) -> bool:
    """Whether an environment variable has the value of a Kubernetes service's address."""
    return os.environ.get(variable, "").startswith(_SERVICE_ADDRESS)


def toml_names(file: Path) -> list[str]:
    """The names of all values in a TOML file, such as `backbone.width`; empty without one. Raises SettingsError."""
    try:
        return list(_paths(tomllib.loads(_text(file))))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} cannot be read: {error}.") from None


def _is_of_a_service(variable: str) -> bool:
    return bool(_SERVICE_VARIABLE.search(variable)) or (variable.endswith("_PORT") and has_service_address(variable))


def _text(file: Path) -> str:
    """The content of a settings file; empty if there is none. Raises SettingsError if it is no text file."""
    try:
        content = file.read_text(encoding="utf-8") if file.exists() else ""
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from None
    if content.startswith("\ufeff"):
        raise SettingsError(f"{file} begins with a byte order mark: save it as UTF-8 without one.")
    return content


def _refuse_unknown(names: Iterable[str], known: Sequence[str], separator: str) -> None:
    """Raise SettingsError for the first name that is neither known nor an empty table of known names."""
    for name in sorted(set(names) - set(known)):
        of_table = [one for one in known if one.startswith(name.removesuffix(separator) + separator)]
        if of_table and name.endswith(separator):
            continue
        if of_table:
            raise SettingsError(f"{name} is a table of settings and has no value: set for example {of_table[0]}.")
        name = name.removesuffix(separator)
        close = get_close_matches(name, known, 1)
        raise SettingsError(f"Unknown setting {name}" + (f": did you mean {close[0]}?" if close else "."))
