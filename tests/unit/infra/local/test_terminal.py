"""A command whose terminal ends stops once, in its own order, and does not fail because of its output."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import signal, sys, time
from pathlib import Path
from infra.local.terminal import on_hangup
on_hangup(signal.default_int_handler)
found = Path(sys.argv[1])
found.write_text("ready")
try:
    time.sleep(float(sys.argv[2]))
    found.write_text("continued")
except KeyboardInterrupt:
    signal.raise_signal(signal.SIGHUP)  # repeated by a shell
    print("the terminal is gone", flush=True)
    found.write_text("stopped")
"""
NOHUP = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]  # nohup itself would write a file


@pytest.mark.parametrize(("command", "result"), [([], "stopped"), (NOHUP, "continued")])
def test_end_of_the_terminal_stops_the_command_unless_nohup(tmp_path: Path, command: list[str], result: str) -> None:
    seconds = "60" if result == "stopped" else "3"
    controller, terminal = pty.openpty()
    child = subprocess.Popen(
        [*command, sys.executable, "-c", PROGRAM, str(tmp_path / "found"), seconds],
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # its first terminal is the controlling one
    )  # fmt: skip
    os.close(terminal)
    while not (tmp_path / "found").exists() or (tmp_path / "found").read_text() != "ready":
        assert child.poll() is None
    os.close(controller)
    assert child.wait(60) == 0
    assert (tmp_path / "found").read_text() == result


def test_signal_without_a_terminal_stops_too(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path / "found"), "60"], stdout=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)) as child:  # fmt: skip
        while not (tmp_path / "found").exists():
            assert child.poll() is None
        child.send_signal(signal.SIGHUP)
        assert child.stdout is not None
        assert child.stdout.read() == b"the terminal is gone\n"  # a file or pipe keeps its output
    assert child.returncode == 0
