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


def check_until_error(flows: Supervisor) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        flows.check()
        time.sleep(0.01)


def test_repeated_crashes_are_an_error_with_log(tmp_path: Path) -> None:
    soon = RestartPolicy(first_delay_s=0.01)
    crashing = (sys.executable, "-c", "import sys; print('the disk is full', flush=True); sys.exit(4)")
    settings = Settings(data_dir=tmp_path)
    with (
        Supervisor(settings, flows=["learn", "titles"], command=crashing, restart_policy=soon) as flows,
        pytest.raises(ServiceError, match=r"crashed 6 times \(exit code 4; [\s\S]*the disk is full"),
    ):
        check_until_error(flows)


def test_crashing_flow_is_tried_for_ever_without_a_limit(tmp_path: Path) -> None:
    forever = RestartPolicy(max_restarts=None, first_delay_s=0.001, max_delay_s=0.001)
    crashing = (sys.executable, "-S", "-c", "raise SystemExit(4)")
    with Supervisor(Settings(data_dir=tmp_path), ["learn"], crashing, forever) as flows:

        def crashed_often() -> bool:
            flows.check()
            return flows.restarts()["learn"] > 7

        _until(crashed_often)


@pytest.mark.parametrize(
    ("code", "message"),
    [(2, "These settings do not work for the flow learn"), (3, "Another process owns the flow learn")],
)
def test_flow_that_cannot_run_is_not_restarted(tmp_path: Path, code: int, message: str) -> None:
    program = f"import sys; print('premiere: The flow learn cannot continue. The width is 384.'); sys.exit({code})"
    with Supervisor(Settings(data_dir=tmp_path), ["learn"], (sys.executable, "-c", program)) as flows:
        with pytest.raises(ServiceError, match=f"{message} .*cannot continue. The width is 384"):
            check_until_error(flows)
        assert flows.restarts() == {"learn": 0}


def reports_of(tmp_path: Path, program: str, is_hung: Callable[[str], bool] = lambda flow: False) -> str:
    """The first report about a flow that runs `program`, without the path of its log."""
    later, reports = RestartPolicy(first_delay_s=60, max_delay_s=60), list[str]()
    command = (sys.executable, "-c", program)
    with Supervisor(Settings(data_dir=tmp_path), ["learn"], command, later, reports.append, is_hung) as flows:

        def reported() -> bool:
            flows.check()
            return bool(reports)

        _until(reported)
    assert len(reports) == 1
    return reports[0].replace(f"; log: {tmp_path / 'logs' / 'learn.log'}", "")


def test_each_crash_is_reported_with_the_last_error(tmp_path: Path) -> None:
    assert reports_of(tmp_path, "raise ValueError('the width is 384')") == (
        "The flow learn crashed (exit code 1) and starts again in 60 s. Its last error: ValueError: the width is 384"
    )


def test_error_of_an_earlier_run_is_not_reported(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "learn.log").write_text("premiere: an earlier error\n")
    assert reports_of(tmp_path, "import os; os.abort()") == (
        "The flow learn crashed (killed by SIGABRT) and starts again in 60 s. It wrote no error."
    )


def test_flow_that_was_asked_to_stop_did_not_crash(tmp_path: Path) -> None:
    assert reports_of(tmp_path, "print('nanobind: leaked')") == (
        "The flow learn ended (exit code 0: it was asked to stop) and starts again in 60 s."
    )


def test_hung_flow_is_killed_and_restarted(tmp_path: Path) -> None:
    def is_hung(flow: str) -> bool:
        return (tmp_path / "started").exists()

    started = f"open({str(tmp_path / 'started')!r}, 'w')"
    program = f"import signal, time; signal.signal(15, signal.SIG_IGN); {started}; time.sleep(600)"
    assert reports_of(tmp_path, program, is_hung) == (
        "The flow learn crashed (it did not answer or made no step, and was killed) and starts again in 60 s. "
        "It wrote no error."
    )


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
