"""Refuses unknown names of settings in all sources: pydantic would silently ignore a misspelled one."""

import io
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from infra.errors import SettingsError

# A Kubernetes service whose name begins with `premiere` adds variables such as PREMIERE_SERVICE_HOST to every pod.
_SERVICE_VARIABLE: Final = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
_SERVICE_ADDRESS: Final = ("tcp://", "udp://", "sctp://")


def check_names(names: Sequence[str], prefix: str, toml: Path, env: Path) -> None:
    """Check the names in both files and in the environment. Raises SettingsError.

    - names: the known settings
    - prefix: of the names in the environment and in the file `env`
    """
    variables = [prefix + name.upper() for name in names]
    try:
        _refuse_unknown(tomllib.loads(_text(toml)), names)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{toml} cannot be read: {error}.") from None
    in_file = dotenv_values(stream=io.StringIO(_text(env)))
    _refuse_unknown((name for name in in_file if name.startswith(prefix)), variables)
    _refuse_unknown((name for name in os.environ if name.startswith(prefix) and not _is_of_a_service(name)), variables)


def looks_like_a_service(variable: str) -> bool:
    """Whether an environment variable has the value of a Kubernetes service's address."""
    return os.environ.get(variable, "").startswith(_SERVICE_ADDRESS)


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
