"""The worker processes of a flow start, stop and fail together."""

import os
import signal
import subprocess
import sys

import pytest

from infra.errors import SettingsError
from infra.run import worker_group
from infra.settings import Settings
from tests.support.processes import all_end

WAITING_WORKER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
os.write(1, b"%d\\n" % os.getpid())
time.sleep(600)
"""
PARENT = """
import sys
from infra.errors import ServiceError
from infra.run import worker_group
from infra.settings import Settings
worker_group.worker_commands = lambda flow, count: [[sys.executable, "-c", sys.argv[1]]] * count
try:
    worker_group.run_group("features", Settings(), 3)
except ServiceError as error:
    print(error, flush=True)
    sys.exit(1)
"""


def _parent(worker: str) -> subprocess.Popen[str]:
    """A parent process with three workers that run this program."""
    return subprocess.Popen([sys.executable, "-c", PARENT, worker], stdout=subprocess.PIPE, text=True)


def _parent_with_waiting_workers() -> tuple[subprocess.Popen[str], list[int]]:
    """A parent process with three waiting workers, and their process ids."""
    parent = _parent(WAITING_WORKER)
    assert parent.stdout is not None
    return parent, [int(parent.stdout.readline()) for _ in range(3)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_all_workers_without_error(number: signal.Signals) -> None:
    parent, pids = _parent_with_waiting_workers()
    parent.send_signal(number)
    output, _ = parent.communicate(timeout=30)
    assert (parent.returncode, output) == (0, "")
    assert all_end(pids)


def test_killed_worker_stops_group_with_error() -> None:
    parent, pids = _parent_with_waiting_workers()
    os.kill(pids[1], signal.SIGKILL)
    output, _ = parent.communicate(timeout=30)
    assert parent.returncode == 1
    assert "of features was killed by signal 9" in output
    assert all_end(pids)


def test_no_worker_outlives_killed_parent() -> None:
    parent, pids = _parent_with_waiting_workers()
    parent.kill()
    parent.communicate(timeout=30)
    assert all_end(pids)


def test_worker_exit_without_stop_request_is_an_error() -> None:
    parent = _parent("")
    output, _ = parent.communicate(timeout=30)
    assert parent.returncode == 1
    assert "of features exited with code 0" in output


@pytest.mark.parametrize(
    ("flow", "workers", "process", "addresses", "message"),
    [
        ("learn", 2, None, (), "learn runs as one process"),
        ("learn", None, 0, (), "learn runs as one process"),
        ("publish", 2, 1, ("a:1", "b:2"), "--addresses is for one worker of features or titles"),
        ("features", None, None, ("a:1", "b:2"), "--addresses is for one worker of features or titles"),
        ("features", 2, 1, (), "features needs the --addresses of all"),
        ("titles", 3, 1, ("a:1", "b:2"), "2 --addresses for 3 workers"),
        ("publish", 2, 2, (), "--process 2 does not exist"),
    ],
)
def test_invalid_worker_options_are_refused(
    flow: str, workers: int | None, process: int | None, addresses: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        worker_group.start_flow(flow, Settings(), workers, process, addresses)


def test_only_clustered_flows_get_addresses() -> None:
    first, second = worker_group.worker_commands("features", 2)
    assert first[first.index("--addresses") + 1] == second[second.index("--addresses") + 1]
    assert len(set(first[first.index("--addresses") + 1].split(","))) == 2
    assert [command[command.index("--process") + 1] for command in (first, second)] == ["0", "1"]
    assert "--addresses" not in worker_group.worker_commands("publish", 2)[1]
