"""A flow's container is healthy once the flow's metrics show that it reads its topics."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final

import pytest

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
    ("page", "code"),
    [
        (b'# HELP premiere_read_offset x\npremiere_read_offset{partition="0",topic="activity"} 7.0\n', 0),
        (b"# HELP premiere_read_offset x\n# TYPE premiere_read_offset gauge\n", 1),
    ],
    ids=["topic is read", "no source yet"],
)
def test_flow_is_healthy_once_it_reads_topics(page: bytes, code: int) -> None:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        server.page = page  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert exit_code(server.server_port) == code
        thread.join()


def test_unreachable_flow_is_unhealthy() -> None:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        port = server.server_port
    assert exit_code(port) == 1
