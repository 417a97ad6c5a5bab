"""Flows are kept running within bounds, and none outlives its supervisor."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import ServiceError
from infra.local.processes import uninterrupted
from infra.local.supervisor import Restarts, Supervisor
from infra.settings import Settings

PATIENCE = 20.0  # seconds to wait for something that takes milliseconds
SLEEPER = (sys.executable, "-c", "import sys, time; print('up', sys.argv[1], flush=True); time.sleep(600)")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(condition: Callable[[], bool]) -> None:
    """Wait, within bounds, until `condition()` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_flows_run_with_logs_of_their_own_and_are_gone_afterwards(tmp_path: Path) -> None:
    with Supervisor(Settings(data_dir=tmp_path), command=SLEEPER) as flows:
        pids = flows.pids()
        assert list(pids) == ["features", "titles", "learn", "publish"]
        logs = [tmp_path / "logs" / f"{name}.log" for name in pids]
        _until(lambda: [log.read_text() for log in logs] == [f"up {name}\n" for name in pids])
        flows.check()
    assert not any(_alive(pid) for pid in pids.values())


def test_a_flow_gets_the_settings_in_its_environment(tmp_path: Path) -> None:
    tell = (sys.executable, "-c", "import os, time; print(os.environ['PREMIERE_SEED'], flush=True); time.sleep(600)")
    with Supervisor(Settings(data_dir=tmp_path, seed=7), flows=["learn"], command=tell):
        _until(lambda: (tmp_path / "logs" / "learn.log").read_text() == "7\n")


def test_a_flow_that_was_killed_is_started_again(tmp_path: Path) -> None:
    soon = Restarts(first=0.05)
    settings = Settings(data_dir=tmp_path)
    with Supervisor(settings, flows=["features", "learn"], command=SLEEPER, patience=soon) as flows:
        before = flows.pids()
        os.kill(before["learn"], signal.SIGKILL)

        def back() -> bool:
            flows.check()
            return flows.pids().get("learn", before["learn"]) != before["learn"]

        _until(back)
        assert flows.restarts() == {"features": 0, "learn": 1}
        assert flows.pids()["features"] == before["features"]


def test_a_flow_that_cannot_live_is_an_error_with_its_log(tmp_path: Path) -> None:
    soon = Restarts(first=0.01)
    dying = (sys.executable, "-c", "import sys; print('the disk is full', flush=True); sys.exit(4)")
    settings = Settings(data_dir=tmp_path)
    with Supervisor(settings, flows=["learn", "titles"], command=dying, patience=soon) as flows:

        def keep_checking() -> None:
            for _ in range(2000):
                flows.check()
                time.sleep(0.01)

        with pytest.raises(ServiceError, match=r"died 6 times \(last exit 4\)[\s\S]*the disk is full"):
            keep_checking()


SUPERVISED = """
import sys, time
from infra.local.supervisor import Settings, Supervisor
sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
with Supervisor(Settings(data_dir=sys.argv[1]), command=sleeper) as flows:
    print(*flows.pids().values(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_flow_outlives_a_supervisor_that_is_ended(tmp_path: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-c", SUPERVISED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(end)
    assert len(pids) == 4
    _until(lambda: not any(_alive(pid) for pid in pids))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_would_interrupt_a_start_comes_after_it(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)
    done: list[str] = []

    def start() -> None:
        with uninterrupted():
            signal.raise_signal(number)
            done.append("known")

    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert done == ["known"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
