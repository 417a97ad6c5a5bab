"""A flow ends if its host's clock steps back, because the engine would read nothing until the old time returns."""

import subprocess
import sys
from typing import Final

import pytest

# Its clock steps 0.2 s after its start.
PROCESS: Final = """
import sys, threading, time
from infra.run.clock_watch import start_clock_watch
start, stop = time.monotonic(), threading.Event()
start_clock_watch(stop, lambda: time.time() + (float(sys.argv[1]) if time.monotonic() - start > 0.2 else 0.0), 0.05)
time.sleep(float(sys.argv[2]))
"""


def run(step_s: float, run_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROCESS, str(step_s), str(run_s)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_step_back_of_an_hour_ends_the_flow_with_a_sentence() -> None:
    done = run(-3600, 50)
    assert done.returncode == 1
    assert "went back by 3600 s" in done.stderr


@pytest.mark.parametrize("step_s", [3600.0, -2.0])
def test_step_forward_and_small_step_back_are_ignored(step_s: float) -> None:
    assert run(step_s, 1.0).returncode == 0
