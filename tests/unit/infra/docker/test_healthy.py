"""A flow's container is healthy while the heartbeat in the flow's metrics advances."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from tests.support.paths import ROOT

HEALTH_CHECK: Final = ROOT / "infra" / "docker" / "healthy.py"


class Page(BaseHTTPRequestHandler):
    """Serves the bytes in `server.page` as a flow's metrics."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.page)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests."""


def exit_code(port: int) -> int:
    return subprocess.run([sys.executable, str(HEALTH_CHECK), str(port)]).returncode


@pytest.mark.parametrize(
    ("heartbeat", "code"),
    [(time.time, 0), (lambda: time.time() - 3600, 1), (lambda: 0.0, 1), (lambda: None, 1)],
    ids=["makes steps", "hangs", "no step yet", "no heartbeat"],
)
def test_flow_is_healthy_while_it_makes_steps(heartbeat: Callable[[], float | None], code: int) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("premiere_heartbeat_timestamp_seconds", "x", registry=registry)
    if (value := heartbeat()) is None:
        registry.unregister(gauge)
    else:
        gauge.set(value)
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        server.page = generate_latest(registry)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert exit_code(server.server_port) == code
        thread.join()


def test_unreachable_flow_is_unhealthy() -> None:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        port = server.server_port
    assert exit_code(port) == 1
