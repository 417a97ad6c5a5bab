"""Each flow serves its own Prometheus metrics, on loopback unless told otherwise.

The server is ours, not the engine's: Bytewax's listens on all addresses, and where its port is taken a flow with
several workers ends with exit code 0 having done nothing (measured). Here a taken port is an error before the start.
"""

import errno
import socket
from collections.abc import Sequence

from prometheus_client import start_http_server

from infra.errors import PortError
from infra.local.supervisor import FLOWS
from infra.settings import Settings


def port(settings: Settings, flow: str, worker: int = 0) -> int:
    """The port of a flow's metrics, further workers four ports on from each other; 0 where they are off."""
    return settings.metrics_port and settings.metrics_port + len(FLOWS) * worker + FLOWS.index(flow)


def serve(settings: Settings, flow: str, worker: int = 0) -> None:
    """Serve this process's metrics until it ends. Raises PortError where the port is taken."""
    chosen = port(settings, flow, worker)
    if chosen == 0:
        return
    check(settings.metrics_host, chosen)
    start_http_server(chosen, settings.metrics_host)


def check(host: str, chosen: int) -> None:
    """Raises PortError where nothing can listen there."""
    try:
        _bind(host, chosen)
    except OSError as error:
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise PortError(
            f"Metrics port {host}:{chosen} {why}: set PREMIERE_METRICS_PORT to another, or 0 for none."
        ) from None


def free_base(settings: Settings, flows: Sequence[str] = FLOWS, tries: int = 100) -> int:
    """The first port from the set one on where all flows find theirs free, so that two stacks fit on one machine."""
    wide = len(flows) * max(map(settings.workers, flows), default=1)
    for base in range(settings.metrics_port, settings.metrics_port + tries * wide, wide):
        try:
            for offset in range(wide):
                _bind(settings.metrics_host, base + offset)
        except OSError:
            continue
        return base
    raise PortError(f"No free ports for metrics from {settings.metrics_port} on: set PREMIERE_METRICS_PORT=0 for none.")


def _bind(host: str, chosen: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as the server does: a closing one is no obstacle
        listener.bind((host, chosen))
