"""Several processes of a flow start, stop and fail together, and what they say of themselves becomes one account."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.local.embedded import free_port
from infra.monitor.metrics_server import port
from infra.monitor.scrape import Histogram, Scrape
from infra.run import worker_group
from infra.settings import Settings
from streaming.state.sharding import Shard

WAITS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
os.write(1, b"%d\\n" % os.getpid())
time.sleep(600)
"""
TEAM = """
import sys
from infra import team
from infra.errors import ServiceError
from infra.settings import Settings
team.commands = lambda flow, count: [[sys.executable, "-c", sys.argv[1]]] * count
try:
    team.together("features", Settings(), 3)
except ServiceError as error:
    print(error, flush=True)
    sys.exit(1)
"""
PAGE = """
premiere_events_total {}.0
premiere_version_served {}.0
premiere_read_offset{{partition="0",topic="activity"}} {}.0
premiere_freshness_seconds_bucket{{kind="event",le="1.0"}} {}.0
"""


def _parent(worker: str) -> subprocess.Popen[str]:
    """A parent of three workers that are this program."""
    return subprocess.Popen([sys.executable, "-c", TEAM, worker], stdout=subprocess.PIPE, text=True)


def _started() -> tuple[subprocess.Popen[str], list[int]]:
    """A parent of three workers that wait, and their process ids."""
    parent = _parent(WAITS)
    assert parent.stdout is not None
    return parent, [int(parent.stdout.readline()) for _ in range(3)]


def _gone(pids: Sequence[int]) -> bool:
    """Whether none of them is left, within a bounded time."""
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_team_that_is_asked_to_stop_drains_and_ends_well(asked: signal.Signals) -> None:
    parent, pids = _started()
    parent.send_signal(asked)
    said, _ = parent.communicate(timeout=30)
    assert (parent.returncode, said) == (0, "")
    assert _gone(pids)


def test_where_one_worker_is_killed_all_stop_and_a_sentence_says_which() -> None:
    parent, pids = _started()
    os.kill(pids[1], signal.SIGKILL)
    said, _ = parent.communicate(timeout=30)
    assert parent.returncode == 1
    assert " of features was killed by signal 9, so the others were stopped: start the flow again" in said
    assert _gone(pids)


def test_no_worker_outlives_a_parent_that_is_killed() -> None:
    parent, pids = _started()
    parent.kill()
    parent.communicate(timeout=30)
    assert _gone(pids)


def test_a_worker_that_ends_unasked_is_an_error_whatever_its_code() -> None:
    parent = _parent("")
    said, _ = parent.communicate(timeout=30)
    assert parent.returncode == 1
    assert " of features ended with exit code 0, so the others were stopped" in said


@pytest.mark.parametrize(
    ("flow", "workers", "process", "addresses", "sentence"),
    [
        ("learn", 2, None, (), "The flow learn is one process"),
        ("learn", None, 0, (), "The flow learn is one process"),
        ("publish", 2, 1, ("a:1", "b:2"), "--addresses belong to"),
        ("features", None, None, ("a:1", "b:2"), "--addresses belong to"),
        ("features", 2, 1, (), "A worker of features needs the --addresses of all"),
        ("titles", 3, 1, ("a:1", "b:2"), "There are 2 --addresses for 3 workers"),
        ("publish", 2, 2, (), "--process 2 is none of 2 workers"),
    ],
)
def test_what_cannot_be_is_refused(
    flow: str, workers: int | None, process: int | None, addresses: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence):
        worker_group.start(flow, Settings(), workers, process, addresses)


def test_a_clusters_workers_know_each_other_and_a_shared_flows_do_not() -> None:
    first, second = worker_group.commands("features", 2)
    assert first[first.index("--addresses") + 1] == second[second.index("--addresses") + 1]
    assert len(set(first[first.index("--addresses") + 1].split(","))) == 2
    assert [command[command.index("--process") + 1] for command in (first, second)] == ["0", "1"]
    assert "--addresses" not in worker_group.commands("publish", 2)[1]


def test_each_worker_has_a_port_of_its_own() -> None:
    settings = Settings(metrics_port=free_port() % 1000 + 9000)
    ports = [port(settings, flow, i) for flow in ("features", "titles", "learn", "publish") for i in range(3)]
    assert len(set(ports)) == len(ports)
    assert port(settings, "publish", 0) == settings.metrics_port + 3  # as before there were workers
    assert port(Settings(metrics_port=0), "publish", 2) == 0


def test_every_user_is_of_one_share_and_only_one_has_what_is_common() -> None:
    shares = [Shard(worker, 3) for worker in range(3)]
    users = [f"user {k} ü" for k in range(3000)]
    held = [sum(share.owns(user) for user in users) for share in shares]
    assert sum(held) == len(users)
    assert all(sum(share.owns(user) for share in shares) == 1 for user in users)
    assert min(held) > 800
    assert [share.is_primary for share in shares] == [True, False, False]
    assert all(Shard().owns(user) for user in users)


def test_the_pages_of_workers_become_one_account() -> None:
    one, two = Scrape.parse(PAGE.format(5, 7, 3, 2)), Scrape.parse(PAGE.format(6, 6, 9, 1))
    page = Scrape.merged([one, two])
    assert page.value("premiere_events_total") == 11
    assert page.value("premiere_version_served") == 6  # the version that every list has at least
    assert page.value("premiere_read_offset", topic="activity") == 3  # both read it all: the slower tells
    assert Histogram.of(page, "premiere_freshness_seconds", kind="event").below == (3,)
