"""The four flows as separate processes that live and die together.

A flow that dies is started again, after a back-off that doubles, and only so many times: a flow that cannot live is an
error that somebody must see, with the end of its log. There is no thread here: whoever waits for the flows calls
`check()` now and then, and that is when the dead are noticed and started again.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from infra.errors import ServiceError
from infra.local.processes import spawn, stop, tail, uninterrupted
from infra.settings import Settings

FLOWS: Final = ("features", "titles", "learn", "publish")


class Restarts(NamedTuple):
    """How patiently a flow that dies is started again: `most` times, `first` to `longest` seconds later, the wait
    doubled at each death; one that lived `long` seconds has its earlier deaths forgotten."""

    most: int = 5
    first: float = 0.5
    longest: float = 8.0
    long: float = 300.0


@dataclass
class _Flow:
    """One flow: its process, and what is remembered of its deaths."""

    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    born: float = 0.0  # monotonic seconds
    deaths: int = 0
    again_at: float | None = None  # monotonic seconds; None while it lives


@dataclass
class Supervisor:
    """Starts the flows on entering, `check()` keeps them running, leaving stops them all, whatever happened."""

    settings: Settings
    flows: Sequence[str] = FLOWS
    command: Sequence[str] = (sys.executable, "-m", "infra.cli.main", "run")
    patience: Restarts = field(default_factory=Restarts)
    _flows: dict[str, _Flow] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        try:
            for name in self.flows:
                log = self.settings.data_dir / "logs" / f"{name}.log"
                self._flows[name] = _Flow([*self.command, name], log)
                self._start(self._flows[name])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM to all (they drain and snapshot), SIGKILL after 10 s to what is left; none survives this call."""
        stop(*(flow.process for flow in self._flows.values() if flow.process))

    def check(self) -> None:
        """Start again what died and has waited its back-off. Raises ServiceError for a flow that died too often."""
        for name, flow in self._flows.items():
            if flow.again_at is None and flow.process and flow.process.poll() is not None:
                self._bury(name, flow, flow.process.returncode)
            elif flow.again_at is not None and time.monotonic() >= flow.again_at:
                self._start(flow)

    def pids(self) -> dict[str, int]:
        """The process id of each flow that runs now."""
        alive = {name: flow.process for name, flow in self._flows.items() if flow.again_at is None}
        return {name: process.pid for name, process in alive.items() if process and process.poll() is None}

    def restarts(self) -> dict[str, int]:
        """How often each flow died since its last long life."""
        return {name: flow.deaths for name, flow in self._flows.items()}

    def _start(self, flow: _Flow) -> None:
        with uninterrupted():
            flow.process = spawn(flow.command, flow.log, {**os.environ, **self.settings.environment()})
        flow.born, flow.again_at = time.monotonic(), None

    def _bury(self, name: str, flow: _Flow, code: int) -> None:
        now = time.monotonic()
        flow.deaths = 1 if now - flow.born > self.patience.long else flow.deaths + 1
        if flow.deaths > self.patience.most:
            raise ServiceError(
                f"The flow {name} died {flow.deaths} times (last exit {code}); {flow.log} ends with:\n{tail(flow.log)}"
            )
        flow.again_at = now + min(self.patience.longest, self.patience.first * 2 ** (flow.deaths - 1))
