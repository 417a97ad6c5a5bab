"""Child processes are stopped with their group, and signals are deferred while one starts."""

import os
import signal
import time
from pathlib import Path

import pytest

from infra.local.processes import defer_signals, spawn, stop
from tests.support.processes import all_end


def test_stop_kills_process_group_that_ignores_sigterm(tmp_path: Path) -> None:
    child = spawn(["bash", "-c", "trap '' TERM; sleep 600 & echo $!; wait; wait"], tmp_path / "log")
    while not (tmp_path / "log").read_text():
        time.sleep(0.01)
    grandchild = int((tmp_path / "log").read_text())
    stop(child, timeout_s=0.2)
    assert child.returncode == -signal.SIGKILL
    assert all_end([child.pid, grandchild])
    assert os.getpid() != child.pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_is_deferred_until_block_ends(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)
    done: list[str] = []

    def start() -> None:
        with defer_signals():
            signal.raise_signal(number)
            done.append("block finished")

    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert done == ["block finished"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
