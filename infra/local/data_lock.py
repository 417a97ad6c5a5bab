"""A lock on the data folder: flows hold it shared, and commands that delete its content hold it exclusively.

The operating system releases the lock when its process ends for any reason, so no stale lock can remain.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from infra.errors import SettingsError

LOCK_FILE: Final = ".in-use"


def hold_shared(data_dir: Path) -> IO[bytes] | None:
    """Hold the shared lock for as long as the returned file is referenced.

    Returns None if the folder is not writable: then it holds no flow's data. Raises SettingsError if a command holds
    the exclusive lock.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / LOCK_FILE).open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SettingsError(f"`premiere reset` is deleting {data_dir}. Start again when it is done.") from None
    return file


@contextmanager
def hold_exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the exclusive lock: no flow can start on the folder. Raises SettingsError if one is running."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / LOCK_FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"Flows are running on {data_dir}. Stop them first (`premiere up`: Ctrl-C).") from None
        yield
