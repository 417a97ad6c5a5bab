"""Locks on the data folder.

Flows hold the lock of the folder shared, and commands that delete its content hold it exclusively. Each flow also holds
a lock of its own exclusively, one per worker: two processes of the same flow would write to the same files.

The operating system releases a lock when its process ends for any reason, so no stale lock can remain. A stopped
process (SIGSTOP) keeps its locks.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from infra.errors import InUseError

LOCK_FILE: Final = ".in-use"
UP_LOCK_FILE: Final = f"{LOCK_FILE}-up"


def hold_shared(data_dir: Path) -> IO[bytes] | None:
    """Hold the shared lock for as long as the returned file is referenced.

    Returns None if the folder is not writable: then it holds no flow's data. Raises InUseError if a command holds
    the exclusive lock.
    """
    refused = f"`premiere reset` is deleting {data_dir}. Start again when it is done."
    return _hold(data_dir / LOCK_FILE, fcntl.LOCK_SH, refused)


def hold_flow(data_dir: Path, flow: str, worker: int) -> IO[bytes] | None:
    """Hold the lock of one worker of a flow for as long as the returned file is referenced.

    Returns None if the folder is not writable. Raises InUseError if another process holds the lock.
    """
    return _hold(
        data_dir / f"{LOCK_FILE}-{flow}-{worker}",
        fcntl.LOCK_EX,
        f"Worker {worker} of the flow {flow} is already running on {data_dir}. Stop that process first, or set "
        "PREMIERE_DATA_DIR to another folder.",
    )


def hold_up(data_dir: Path) -> IO[bytes] | None:
    """Hold the lock of `premiere up`, as `hold_flow` does."""
    return _hold(data_dir / UP_LOCK_FILE, fcntl.LOCK_EX, f"`premiere up` is already running on {data_dir}.")


def is_up(data_dir: Path) -> bool:
    """Whether a `premiere up` runs on the folder. A process id would not tell: another process may have it by now."""
    try:
        with (data_dir / UP_LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # no file, or another user's folder
    return False


def _hold(path: Path, operation: int, refused: str) -> IO[bytes] | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InUseError(refused) from None
    return file


@contextmanager
def hold_exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the exclusive lock: no flow can start on the folder. Raises InUseError if one is running."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / LOCK_FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(f"Flows are running on {data_dir}. Stop them first (`premiere up`: Ctrl-C).") from None
        yield
