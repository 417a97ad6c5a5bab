"""Ends a flow whose host's clock steps back, so that its supervisor starts it again.

The engine wakes its sources at wall-clock times that it has computed before. After a step back it reads nothing until
the old time has come again (measured: for the whole step). A restart continues where the flow stopped.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final

MAX_STEP_BACK_S: Final = 5.0  # a shorter pause needs no restart
INTERVAL_S: Final = 1.0

log: Final = logging.getLogger(__name__)


def start_clock_watch(
    stop: threading.Event, clock: Callable[[], float] = time.time, interval_s: float = INTERVAL_S
) -> None:
    """Watch the clock in a thread until `stop` is set; exit with 1 after a step back."""
    threading.Thread(target=_watch, args=(stop, clock, interval_s), name="clock watch", daemon=True).start()


def _watch(stop: threading.Event, clock: Callable[[], float], interval_s: float) -> None:
    before = clock() - time.monotonic()
    while not stop.wait(interval_s):
        now = clock() - time.monotonic()
        if before - now > MAX_STEP_BACK_S:
            log.critical(
                "The host's clock went back by %.0f s. This flow would read nothing for as long, so it ends; its next "
                "start continues where it stopped.", before - now,
            )  # fmt: skip
            os._exit(1)  # the main thread is in the engine, which would not return
        before = now
