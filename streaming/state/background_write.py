"""Writes a checkpoint in a thread of its own, which the exit of the process waits for only a limited time."""

import atexit
import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future
from typing import Final

from streaming.records import Version

EXIT_TIMEOUT_S: Final = 10.0  # for which the process's exit waits for a checkpoint

_running: Final[set[Future[Version]]] = set()  # writes of this process


@atexit.register
def _wait_at_exit() -> None:
    futures.wait(list(_running), EXIT_TIMEOUT_S)


def start_write(work: Callable[[], Version]) -> Future[Version]:
    """Run `work` in a daemon thread, because a hanging storage must not keep the process from exiting."""
    future: Future[Version] = Future()
    _running.add(future)
    future.add_done_callback(_running.discard)

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return future
