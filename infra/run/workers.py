"""A worker's place among the processes of its flow, and its reaction to SIGTERM, Ctrl-C and SIGHUP."""

import signal
import threading
from dataclasses import dataclass
from typing import Final

from infra.local.terminal import on_hangup


@dataclass(frozen=True)
class Worker:
    """One process of a flow."""

    index: int = 0
    count: int = 1  # processes of the flow
    addresses: tuple[str, ...] = ()  # host:port of each process, if they form a Bytewax cluster


SINGLE_WORKER: Final = Worker()


def stop_on_signals(stop: threading.Event) -> None:
    """The first SIGTERM or Ctrl-C sets `stop`, so that the flow drains; the second ends the process immediately.

    The end of the terminal sets `stop` too.
    """

    def request_stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        stop.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    on_hangup(lambda _number, _frame: stop.set())
