"""Which worker of a flow a process is, and how it hears that it should stop: shared by those who start and who run."""

import signal
import threading
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Worker:
    """One of `count` processes of a flow; `addresses` (host:port of each) where they form a cluster of the engine."""

    index: int = 0
    count: int = 1
    addresses: tuple[str, ...] = ()


ALONE: Final = Worker()


def stop_on_signals(stop: threading.Event) -> None:
    """The first SIGTERM or Ctrl-C asks to drain; a second one of the kind acts at once."""

    def ask(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
