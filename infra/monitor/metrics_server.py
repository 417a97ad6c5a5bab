"""Prometheus endpoint of each flow, on loopback unless `metrics_host` says otherwise.

Bytewax has a metrics server too, but it listens on all addresses. If its port is taken, a flow with several workers
exits with code 0 without doing any work (measured). Here a taken port is an error at startup.
"""

import errno
import socket
from collections.abc import Sequence

from prometheus_client import start_http_server

from infra.errors import PortError
from infra.local.supervisor import FLOWS
from infra.settings import Settings


def metrics_port(settings: Settings, flow: str, worker: int = 0) -> int:
    """The port of a worker's metrics; 0 if metrics are off. Workers of one flow are `len(FLOWS)` ports apart."""
    return settings.metrics_port and settings.metrics_port + len(FLOWS) * worker + FLOWS.index(flow)


def start_metrics_server(settings: Settings, flow: str, worker: int = 0) -> None:
    """Serve this process's metrics until the process ends. Raises PortError if the port is taken."""
    port = metrics_port(settings, flow, worker)
    if port == 0:
        return
    check_port_free(settings.metrics_host, port)
    start_http_server(port, settings.metrics_host)


def check_port_free(host: str, port: int) -> None:
    """Raises PortError if the port cannot be bound."""
    try:
        _bind(host, port)
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise PortError(
            f"Metrics port {host}:{port} {reason}. Set PREMIERE_METRICS_PORT to another port, or to 0 for no metrics."
        ) from None


def free_base_port(settings: Settings, flows: Sequence[str] = FLOWS, attempts: int = 100) -> int:
    """The first base port from `settings.metrics_port` on with free ports for all workers of all flows.

    Several installations on one machine thus get different ports. Raises PortError if there is none.
    """
    width = len(flows) * max(map(settings.worker_count, flows), default=1)
    for base in range(settings.metrics_port, settings.metrics_port + attempts * width, width):
        try:
            for offset in range(width):
                _bind(settings.metrics_host, base + offset)
        except OSError:
            continue
        return base
    raise PortError(
        f"No free metrics ports from {settings.metrics_port} on. Set PREMIERE_METRICS_PORT=0 for no metrics."
    )


def _bind(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        # The HTTP server sets it too: a connection in TIME_WAIT must not count as taken.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
