"""Ports of the flows' Prometheus endpoints."""

import socket
from urllib.request import urlopen

import pytest
from prometheus_client import Gauge

from infra.errors import PortError
from infra.local.embedded import LOOPBACK, free_port
from infra.monitor.metrics_server import free_base_port, metrics_port, start_metrics_server
from infra.settings import Settings

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
