"""Child processes that cannot outlive us: the one place that starts and stops them.

Each child leads its own session, so that Ctrl-C in a terminal reaches only us and we stop the children in an order of
our own. On Linux the kernel kills it when we die, however we die (`PR_SET_PDEATHSIG`), so that even `kill -9` leaves
nothing behind. The signal is tied to the thread that starts the child: start from one that lives as long as the child.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

PATIENCE: Final = 10.0  # seconds between SIGTERM and SIGKILL
TAIL: Final = 12  # lines of a log that an error shows
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


def spawn(command: Sequence[str], log: Path | None, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `command`, its output appended to the file `log` (None: to where ours goes); `env` in place of ours."""
    parent = os.getpid()
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if log is None else log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=None if log is None else subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: _die_with(parent),
        )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the block's end: nobody could stop a child that runs and is not known yet."""
    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread alone
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for first in came[:1]:
        signal.raise_signal(first)


def _die_with(parent: int) -> None:
    """In the child, before it becomes the program: ask to be killed with the parent."""
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)


def stop(*processes: subprocess.Popen[bytes], patience: float = PATIENCE) -> None:
    """SIGTERM all, wait up to `patience` seconds for all together, then SIGKILL what is left of each one's group.

    Returns with every one of them reaped, also when interrupted on the way.
    """
    try:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        _wait(processes, patience)
    finally:
        for process in processes:
            _kill_group(process)
            process.wait()


def _wait(processes: Sequence[subprocess.Popen[bytes]], patience: float) -> None:
    """Wait for all, up to `patience` seconds in sum."""
    deadline = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process's own group: it and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def tail(log: Path, lines: int = TAIL) -> str:
    """The last lines of a log, for an error message; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 400 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
