"""The supervisor restarts crashed flows up to a limit, and no flow outlives it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from infra.errors import ServiceError
from infra.local.supervisor import RestartPolicy, Supervisor
from infra.run.worker_group import worker_commands
from infra.settings import Settings
from tests.support.processes import is_alive

TIMEOUT_S = 20.0  # for steps that take milliseconds
SLEEPER = (sys.executable, "-c", "import sys, time; print('up', sys.argv[1], flush=True); time.sleep(600)")


def _until(condition: Callable[[], bool]) -> None:
    """Wait until `condition()` holds; fail after `TIMEOUT_S`."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_flows_write_logs_and_stop_with_context(tmp_path: Path) -> None:
    with Supervisor(Settings(data_dir=tmp_path), command=SLEEPER) as flows:
        pids = flows.pids()
        assert list(pids) == ["features", "titles", "learn", "publish"]
        logs = [tmp_path / "logs" / f"{name}.log" for name in pids]
        _until(lambda: [log.read_text() for log in logs] == [f"up {name}\n" for name in pids])
        flows.check()
    assert not any(is_alive(pid) for pid in pids.values())


def test_flow_gets_settings_as_environment(tmp_path: Path) -> None:
    program = "import os, time; print(os.environ['PREMIERE_SEED'], flush=True); time.sleep(600)"
    with Supervisor(Settings(data_dir=tmp_path, seed=7), flows=["learn"], command=(sys.executable, "-c", program)):
        _until(lambda: (tmp_path / "logs" / "learn.log").read_text() == "7\n")


@pytest.mark.parametrize("command", [Supervisor.command, worker_commands("publish", 1)[0]], ids=["flow", "worker"])
def test_file_in_working_directory_does_not_shadow_library(command: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise RuntimeError")  # `sparse.py` would shadow a library that Feast imports
    child = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_killed_flow_is_restarted(tmp_path: Path) -> None:
    soon = RestartPolicy(first_delay_s=0.05)
    settings = Settings(data_dir=tmp_path)
    with Supervisor(settings, flows=["features", "learn"], command=SLEEPER, restart_policy=soon) as flows:
        before = flows.pids()
        os.kill(before["learn"], signal.SIGKILL)

        def restarted() -> bool:
            flows.check()
            return flows.pids().get("learn", before["learn"]) != before["learn"]

        _until(restarted)
        assert flows.restarts() == {"features": 0, "learn": 1}
        assert flows.pids()["features"] == before["features"]


def test_repeated_crashes_are_an_error_with_log(tmp_path: Path) -> None:
    soon = RestartPolicy(first_delay_s=0.01)
    crashing = (sys.executable, "-c", "import sys; print('the disk is full', flush=True); sys.exit(4)")
    settings = Settings(data_dir=tmp_path)
    with Supervisor(settings, flows=["learn", "titles"], command=crashing, restart_policy=soon) as flows:

        def keep_checking() -> None:
            for _ in range(2000):
                flows.check()
                time.sleep(0.01)

        with pytest.raises(ServiceError, match=r"crashed 6 times \(exit code 4; [\s\S]*the disk is full"):
            keep_checking()


def test_each_crash_is_reported_with_the_last_error(tmp_path: Path) -> None:
    soon, reports = RestartPolicy(first_delay_s=60), list[str]()
    crashing = (sys.executable, "-c", "raise ValueError('the width is 384')")
    settings = Settings(data_dir=tmp_path)
    with Supervisor(settings, ["learn"], crashing, soon, reports.append) as flows:
        deadline = time.monotonic() + TIMEOUT_S
        while not reports and time.monotonic() < deadline:
            flows.check()
            time.sleep(0.02)
    assert reports == [
        f"The flow learn crashed (exit code 1; log: {tmp_path / 'logs' / 'learn.log'}) and starts again in 8 s. "
        "Its last error: ValueError: the width is 384"
    ]


SUPERVISED = """
import sys, time
from infra.local.supervisor import Settings, Supervisor
sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
with Supervisor(Settings(data_dir=sys.argv[1]), command=sleeper) as flows:
    print(*flows.pids().values(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_flow_outlives_its_supervisor(tmp_path: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-c", SUPERVISED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(end)
    assert len(pids) == 4
    _until(lambda: not any(is_alive(pid) for pid in pids))


def test_flow_that_another_process_owns_is_not_restarted(tmp_path: Path) -> None:
    program = "import sys; print('premiere: The flow learn cannot continue. It is running elsewhere.'); sys.exit(3)"
    command = (sys.executable, "-c", program)
    with Supervisor(Settings(data_dir=tmp_path), flows=["learn"], command=command) as flows:
        _until(lambda: not flows.pids())
        with pytest.raises(ServiceError, match="Another process owns the flow learn"):
            flows.check()
        assert flows.restarts() == {"learn": 0}
