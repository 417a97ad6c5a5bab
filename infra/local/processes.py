"""Starts and stops child processes that cannot outlive this process.

Each child leads its own session: Ctrl-C in a terminal reaches only the parent, which then stops the children in its own
order. On Linux the kernel kills the child when the parent ends for any reason (`PR_SET_PDEATHSIG`), even by `kill -9`.
The kernel ties that signal to the thread that starts the child, so this thread must live as long as the child.
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

TERMINATION_TIMEOUT_S: Final = 10.0  # between SIGTERM and SIGKILL
ERROR_LOG_LINES: Final = 12  # of a log file in an error message
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


def spawn(command: Sequence[str], log: Path | None, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `command` with the environment `env` (None: inherited) and append its output to `log` (None: inherited)."""
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
            preexec_fn=lambda: _kill_with_parent(parent),
        )


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer signals that stop to the end of the block: a child that just started would not be stopped otherwise."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    received: list[int] = []
    deferred = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {n: signal.signal(n, lambda number, _: received.append(number)) for n in deferred}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for first in received[:1]:
        signal.raise_signal(first)


def _kill_with_parent(parent: int) -> None:
    """Runs in the child before exec: ask the kernel to kill it when the parent ends."""
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before the call
        os._exit(1)


def stop(*processes: subprocess.Popen[bytes], timeout_s: float = TERMINATION_TIMEOUT_S) -> None:
    """Send SIGTERM to all, wait up to `timeout_s` seconds in total, then SIGKILL each remaining process group.

    All processes are reaped on return, even if the wait is interrupted.
    """
    try:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        _wait_all(processes, timeout_s)
    finally:
        for process in processes:
            _kill_group(process)
            process.wait()


def _wait_all(processes: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> None:
    """Wait for all, up to `timeout_s` seconds in total."""
    deadline = time.monotonic() + timeout_s
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the group of the process: it and its descendants."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def log_tail(log: Path, lines: int = ERROR_LOG_LINES, start: int = 0) -> str:
    """The last lines of a log file from byte `start` on; empty if the file does not exist."""
    try:
        with log.open("rb") as file:
            size = log.stat().st_size
            file.seek(max(start if start <= size else 0, size - 400 * lines))  # a file that shrank was rotated
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
