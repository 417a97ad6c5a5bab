"""Finds flows that hang, by `/livez` on the metrics ports of their workers."""

import time
from http import HTTPStatus
from typing import Final

from infra.monitor.metrics_server import MAX_START_S, metrics_port
from infra.monitor.scrape import fetch
from infra.settings import Settings

PROBE_INTERVAL_S: Final = 30.0


class LivenessProbe:
    """Probes the workers of running flows at intervals. A flow hangs if a worker says so, or is silent for too long.

    A stopped process, or one whose native code never returns, does not answer. Without metrics ports no hang is found.
    """

    def __init__(
        self, settings: Settings, interval_s: float = PROBE_INTERVAL_S, max_silence_s: float = MAX_START_S
    ) -> None:
        self._settings = settings
        self._interval_s = interval_s
        self._max_silence_s = max_silence_s
        self._probed_at: dict[str, float] = {}  # flow -> monotonic seconds of the last probe
        self._answered_at: dict[str, float] = {}  # flow -> monotonic seconds of the last answer of all workers

    def is_hung(self, flow: str) -> bool:
        """Whether a running flow hangs; probes at most once per interval. After True the flow counts as new."""
        last = self._probed_at.get(flow, float("-inf"))
        if not self._settings.metrics_port or time.monotonic() - last < self._interval_s:
            return False
        answers = [fetch(self._settings, port, "/livez") for port in self._ports(flow)]
        now = self._probed_at[flow] = time.monotonic()
        if None not in answers:
            self._answered_at[flow] = now
        silent = now - self._answered_at.setdefault(flow, now) > self._max_silence_s
        hung = silent or any(answer is not None and answer[0] != HTTPStatus.OK for answer in answers)
        if hung:
            self._answered_at.pop(flow, None)
        return hung

    def _ports(self, flow: str) -> list[int]:
        return [metrics_port(self._settings, flow, worker) for worker in range(self._settings.worker_count(flow))]
