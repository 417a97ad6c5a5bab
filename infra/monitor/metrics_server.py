"""HTTP endpoint of each flow: metrics and probes, on loopback unless `metrics_host` says otherwise.

- `/metrics`: in Prometheus's format
- `/livez`: 200 while the flow makes steps. It fails six minutes after the last one, because a flow waits for Redis for
  up to five, and fifteen minutes after a start without a first step
- `/startupz`: 200 while the flow is alive and has started and compiled: it reads its topics
- `/readyz`: 200 once the flow's output is current (`streaming.phase`)

Bytewax has a metrics server too, but it listens on all addresses. If its port is taken, a flow with several workers
exits with code 0 without doing any work (measured). Here a taken port is an error at startup.
"""

import errno
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from infra.errors import PortError
from infra.local.supervisor import FLOWS
from infra.settings import Settings
from streaming import heartbeat, phase
from streaming.phase import Phase

MAX_STEP_S: Final = 360.0  # between two steps of a flow that is alive
PROBED_PHASES: Final = {"/startupz": (Phase.CATCHING_UP, Phase.READY), "/readyz": (Phase.READY,)}
MAX_START_S: Final = 900.0  # before the first step
_STARTED_AT: Final = time.time()

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def metrics_port(settings: Settings, flow: str, worker: int = 0) -> int:
    """The port of a worker's metrics; 0 if metrics are off. Workers of one flow are `len(FLOWS)` ports apart."""
    return settings.metrics_port and settings.metrics_port + len(FLOWS) * worker + FLOWS.index(flow)


def start_metrics_server(settings: Settings, flow: str, worker: int = 0) -> None:
    """Serve this process's metrics and probes until the process ends. Raises PortError if the port is taken."""
    port = metrics_port(settings, flow, worker)
    if port == 0:
        return
    check_port_free(settings.metrics_host, port)

    class Server(ThreadingWSGIServer):
        address_family = socket.AF_INET6 if ":" in settings.metrics_host else socket.AF_INET

    server = make_server(settings.metrics_host, port, application(make_wsgi_app()), Server, _SilentHandler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _SilentHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def application(metrics: WsgiApp) -> WsgiApp:
    """The endpoint's paths."""

    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            status, text = "405 Method Not Allowed", "only GET and HEAD"
        elif path == "/metrics":
            body = metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else body
        elif path == "/livez":
            status, text = _status(*is_alive())
        elif path in PROBED_PHASES:
            alive, text = is_alive()
            reached = phase.current() in PROBED_PHASES[path]
            status, text = _status(alive and reached, text if reached else str(phase.current()))
        else:
            status, text = "404 Not Found", "try /metrics, /livez, /startupz or /readyz"
        answer = f"{text}\n".encode()
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(answer)))])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [answer]

    return respond


def _status(ok: bool, text: str) -> tuple[str, str]:
    return "200 OK" if ok else "503 Service Unavailable", text


def is_alive() -> tuple[bool, str]:
    """Whether the flow makes steps, or may still be starting; and a sentence about it."""
    last, now = heartbeat.last_beat(), time.time()
    if not last:
        return now - _STARTED_AT < MAX_START_S, f"no step yet, {now - _STARTED_AT:.0f} s after the start"
    return now - last < MAX_STEP_S, f"last step {now - last:.0f} s ago"


def check_port_free(host: str, port: int) -> None:
    """Raises PortError if the port cannot be bound."""
    try:
        _bind(host, port)
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise PortError(
            f"Metrics port {host}:{port} {reason}. Set PREMIERE_METRICS_PORT to another port, or to 0 for no metrics."
        ) from None


@contextmanager
def reserved_base_port(settings: Settings, flows: Sequence[str] = FLOWS, attempts: int = 100) -> Iterator[int]:
    """The first base port from `settings.metrics_port` on with free ports for all workers of all flows.

    Other installations on this machine get other ports: the block is reserved during the context, because the flows
    bind their ports only some seconds later. Raises PortError if there is none.
    """
    width = len(flows) * max(map(settings.worker_count, flows), default=1)
    for base in range(settings.metrics_port, settings.metrics_port + attempts * width, width):
        reservations: list[socket.socket] = []
        try:
            for port in range(base, base + width):
                reservations += _reserve(port)
                _bind(settings.metrics_host, port)
        except OSError:
            _close(reservations)
            continue
        try:
            yield base
        finally:
            _close(reservations)
        return
    raise PortError(
        f"No free metrics ports from {settings.metrics_port} on. Set PREMIERE_METRICS_PORT=0 for no metrics."
    )


def _reserve(port: int) -> list[socket.socket]:
    """Reserve a port for this machine, without binding it. The reservation ends with its process, whatever ends it.

    It is a Unix socket in Linux's abstract namespace; other systems have none. Raises OSError if it is reserved.
    """
    if sys.platform != "linux":
        return []
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0premiere-metrics-{port}")
    except OSError:
        reservation.close()
        raise
    return [reservation]


def _close(reservations: Sequence[socket.socket]) -> None:
    for reservation in reservations:
        reservation.close()


def _bind(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        # The HTTP server sets it too: a connection in TIME_WAIT must not count as taken.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
