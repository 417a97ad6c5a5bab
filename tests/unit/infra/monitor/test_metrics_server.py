"""Ports of the flows' Prometheus endpoints."""

import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from urllib.request import urlopen

import pytest
from prometheus_client import Gauge

from infra.errors import PortError
from infra.local.embedded import LOOPBACK, free_port
from infra.monitor import metrics_server
from infra.monitor.metrics_server import metrics_port, reserved_base_port, start_metrics_server
from infra.settings import Settings
from streaming import heartbeat, phase
from streaming.phase import Phase
from tests.support.ports import free_base_port

ANSWER = Gauge("premiere_test_answer", "set by a test")


def test_flow_serves_metrics_on_its_port() -> None:
    settings = Settings(metrics_port=free_port() - 2)
    ANSWER.set(42)
    start_metrics_server(settings, "learn")
    with urlopen(f"http://{LOOPBACK}:{settings.metrics_port + 2}/metrics") as answer:
        assert b"premiere_test_answer 42.0" in answer.read()


def test_taken_port_is_an_error_with_remedy() -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(PortError, match=rf"{taken} is taken.*PREMIERE_METRICS_PORT"):
            start_metrics_server(Settings(metrics_port=taken), "features")


def test_free_base_port_skips_taken_ports() -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        taken = other.getsockname()[1]
        base = free_base_port(Settings(metrics_port=taken - 1))
    assert base >= taken + 3


def test_block_that_is_reserved_is_not_given_to_another_process() -> None:
    settings = Settings(metrics_port=24_800)
    program = (
        "from infra.monitor.metrics_server import reserved_base_port; from infra.settings import Settings\n"
        "with reserved_base_port(Settings(metrics_port=24_800)) as base: print(base)"
    )

    def of_another_process() -> int:
        return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)

    with reserved_base_port(settings) as base:
        assert of_another_process() >= base + 4
    assert of_another_process() == base


@pytest.mark.parametrize(
    ("current", "last_step_s", "live", "started", "ready"),
    [
        (Phase.STARTING, None, 200, 503, 503),
        (Phase.COMPILING, None, 200, 503, 503),
        (Phase.CATCHING_UP, 1, 200, 200, 503),
        (Phase.READY, 1, 200, 200, 200),
        (Phase.READY, 400, 503, 503, 503),
    ],
)
def test_probes(
    monkeypatch: pytest.MonkeyPatch, current: Phase, last_step_s: float | None, live: int, started: int, ready: int
) -> None:
    monkeypatch.setattr(phase, "current", lambda: current)
    monkeypatch.setattr(heartbeat, "last_beat", lambda: 0.0 if last_step_s is None else time.time() - last_step_s)
    settings = Settings(metrics_port=free_port() - 2)
    start_metrics_server(settings, "learn")
    for path, wanted in {"livez": live, "startupz": started, "readyz": ready, "metrics": 200, "other": 404}.items():
        for method in ("GET", "HEAD"):
            connection = HTTPConnection(LOOPBACK, settings.metrics_port + 2, timeout=10)
            connection.request(method, f"/{path}")
            answer = connection.getresponse()
            assert answer.status == wanted, path
            assert bool(answer.read()) == (method == "GET")
            connection.close()


def test_flow_that_never_makes_a_step_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_STARTED_AT", time.time() - 1000)
    monkeypatch.setattr(heartbeat, "last_beat", lambda: 0.0)
    assert not metrics_server.is_alive()[0]


def test_port_zero_disables_metrics() -> None:
    off = Settings(metrics_port=0)
    assert [metrics_port(off, flow) for flow in ("features", "publish")] == [0, 0]
    start_metrics_server(off, "features")


def test_each_worker_has_its_own_port() -> None:
    settings = Settings(metrics_port=free_port() % 1000 + 9000)
    ports = [metrics_port(settings, flow, i) for flow in ("features", "titles", "learn", "publish") for i in range(3)]
    assert len(set(ports)) == len(ports)
    assert metrics_port(settings, "publish", 0) == settings.metrics_port + 3
    assert metrics_port(Settings(metrics_port=0), "publish", 2) == 0
