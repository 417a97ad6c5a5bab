"""The heartbeat of a flow: it advances only while the dataflow makes steps, with or without input.

The engine polls the sources in the thread that runs all steps of a worker. So a step or a sink that hangs stops it.
"""

import time
from typing import Final

from prometheus_client import Gauge

HEARTBEAT: Final = Gauge(
    "premiere_heartbeat_timestamp_seconds", "Unix time of the flow's last step, with or without input; 0 before it."
)


_last = 0.0  # Unix time


def beat() -> None:
    """The flow makes a step."""
    global _last
    _last = time.time()
    HEARTBEAT.set(_last)


def last_beat() -> float:
    """Unix time of the last step in this process; 0 before the first."""
    return _last
