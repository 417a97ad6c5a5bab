"""Chooses the folder in which numba keeps compiled code, by the sources that it was compiled from.

Numba compiles a function together with those that it calls, and looks at the function's own file only to decide whether
its compiled code is still valid. After a change of a called function in another file, it would run the old one. So each
state of the sources has a folder of its own, below NUMBA_CACHE_DIR or the user's cache.

This module is imported first of all in `model`, and imports no third-party package.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Final

VARIABLE: Final = "NUMBA_CACHE_DIR"


def sources_hash(folder: Path) -> str:
    """A hash of all Python files in a folder."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def cache_folder(base: str, version: str) -> Path | None:
    """The folder for this version of the sources, created; None if it cannot be: numba then looks for one itself."""
    if base.endswith(version):  # inherited from the process that started this one
        return Path(base)
    parent = (
        Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "premiere/numba"
    )
    folder = parent / version
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def choose_cache_folder() -> None:
    """Set NUMBA_CACHE_DIR for this process and its children."""
    folder = cache_folder(os.environ.get(VARIABLE, ""), sources_hash(Path(__file__).parent))
    if folder is None:
        return
    os.environ[VARIABLE] = str(folder)
    if (numba := sys.modules.get("numba")) is not None:  # it has read the variable already
        numba.config.CACHE_DIR = str(folder)
