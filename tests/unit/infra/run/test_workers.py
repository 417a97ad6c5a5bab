"""The first SIGTERM or Ctrl-C lets a flow drain; the second ends its process."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys, threading
from infra.run.workers import stop_on_signals
stop = threading.Event()
stop_on_signals(stop)
for number in map(int, sys.argv[1:]):
    signal.raise_signal(number)
    print("stop requested:", stop.is_set(), flush=True)
"""
DRAINS = "stop requested: True\n"


def send_signals(*numbers: int) -> tuple[int, str]:
    """The exit code and the output of a process that receives these signals."""
    command = [sys.executable, "-c", PROGRAM, *(str(int(number)) for number in numbers)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return child.returncode, child.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_requests_stop_and_second_kills(number: signal.Signals) -> None:
    assert send_signals() == (0, "")
    assert send_signals(number) == (0, DRAINS)
    assert send_signals(number, number) == (-number, DRAINS)


def test_end_of_the_terminal_requests_stop_and_its_repetition_does_not_kill() -> None:
    assert send_signals(signal.SIGHUP, signal.SIGHUP) == (0, DRAINS * 2)


def test_ctrl_c_and_sigterm_are_counted_separately() -> None:
    assert send_signals(signal.SIGINT, signal.SIGTERM) == (0, DRAINS * 2)
