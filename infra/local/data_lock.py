"""Who uses a data folder: flows hold a lock on it together, and what removes its content needs it alone.

The operating system drops a lock with its process, however that ends, so nothing is left to clean up.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from infra.errors import SettingsError

LOCK: Final = ".in-use"


def hold(data_dir: Path) -> IO[bytes] | None:
    """Say that a flow uses the folder, for as long as what is returned lives; None where it cannot be written, for
    then nothing of a flow lies there. Raises SettingsError while it is being emptied."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / LOCK).open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise SettingsError(f"{data_dir} is being emptied by `premiere reset`: start again when it is done.") from None
    return file


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Keep flows from starting on the folder. Raises SettingsError where one runs."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"Flows are running on {data_dir}: stop them first (`premiere up`: Ctrl-C).") from None
        yield
