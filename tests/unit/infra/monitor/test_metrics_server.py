"""Metrics are served where they were asked for, or the flow does not start."""

import socket
from urllib.request import urlopen

import pytest
from prometheus_client import Gauge

from infra.errors import PortError
from infra.local.embedded import HOST, free_port
from infra.monitor.metrics_server import free_base, port, serve
from infra.settings import Settings

ANSWER = Gauge("premiere_test_answer", "set by a test")


def test_a_flow_serves_its_metrics_on_its_own_port() -> None:
    settings = Settings(metrics_port=free_port() - 2)
    ANSWER.set(42)
    serve(settings, "learn")
    with urlopen(f"http://{HOST}:{settings.metrics_port + 2}/metrics") as answer:
        assert b"premiere_test_answer 42.0" in answer.read()


def test_a_taken_port_is_an_error_that_names_the_remedy() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(PortError, match=rf"{taken} is taken: set PREMIERE_METRICS_PORT"):
            serve(Settings(metrics_port=taken), "features")


def test_a_second_stack_gets_ports_beside_the_first() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        base = free_base(Settings(metrics_port=taken - 1))
    assert base >= taken + 3


def test_no_port_means_no_metrics() -> None:
    off = Settings(metrics_port=0)
    assert [port(off, flow) for flow in ("features", "publish")] == [0, 0]
    serve(off, "features")
