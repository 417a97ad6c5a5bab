"""The end of the terminal from which a command was started (SIGHUP), for example of an SSH session."""

import os
import signal
from collections.abc import Callable
from types import FrameType


def on_hangup(handler: Callable[[int, FrameType | None], object]) -> None:
    """Call `handler` when the terminal ends, once: a shell repeats the signal. Later output is dropped.

    A command that was started with `nohup` continues instead.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    outputs = [number for number in (1, 2) if os.isatty(number)]  # a terminal that has ended is none any more

    def hang_up(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in outputs:
            os.dup2(nowhere, output)
        os.close(nowhere)
        handler(number, frame)

    signal.signal(signal.SIGHUP, hang_up)
