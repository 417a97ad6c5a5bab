"""A flow's container is healthy while the flow's probe succeeds."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

import pytest

from tests.support.paths import ROOT

HEALTH_CHECK: Final = ROOT / "infra" / "docker" / "healthy.py"


class Probes(BaseHTTPRequestHandler):
    """Answers as a flow that has started and is not ready."""

    def do_GET(self) -> None:
        self.send_response({"/startupz": 200, "/livez": 200, "/readyz": 503}.get(self.path, 404))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Do not log requests."""


def exit_code(*arguments: str) -> int:
    proxied = os.environ | {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": ""}
    return subprocess.run([sys.executable, str(HEALTH_CHECK), *arguments], env=proxied).returncode


@pytest.mark.parametrize(("probe", "code"), [((), 0), (("livez",), 0), (("readyz",), 1)])
def test_probe_decides_and_a_proxy_is_not_used(probe: tuple[str, ...], code: int) -> None:
    with HTTPServer(("127.0.0.1", 0), Probes) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert exit_code(str(server.server_port), *probe) == code
        thread.join()


def test_unreachable_flow_is_unhealthy() -> None:
    with HTTPServer(("127.0.0.1", 0), Probes) as server:
        port = server.server_port
    assert exit_code(str(port)) == 1
