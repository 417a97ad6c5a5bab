"""Runs the four flows as child processes and restarts those that crash or hang.

Each crash is reported with the last error in the flow's log. The delay before the next restart grows twofold with each,
up to `max_delay_s`. After `max_restarts`, or if a flow refuses its settings, `check()` raises an error. There is no
thread: the caller must call `check()` regularly, which detects crashes and restarts flows.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from infra.errors import FlowOwnedError, ServiceError, SettingsError
from infra.local.last_error import last_error
from infra.local.processes import defer_signals, spawn, stop
from infra.settings import Settings

FLOWS: Final = ("features", "titles", "learn", "publish")
FULL_DISK_BYTES: Final = 1e6  # with less free space, a missing error may mean that it could not be written
_PERMANENT: Final = {  # exit code after which another start would not help -> what happened
    FlowOwnedError.exit_code: "Another process owns the flow",  # a restart must not take it back
    SettingsError.exit_code: "These settings do not work for the flow",
}


class RestartPolicy(NamedTuple):
    """When and how often a crashed flow is restarted."""

    max_restarts: int | None = 5  # in a row; one more crash is an error; None: no limit
    first_delay_s: float = 0.5  # before the first restart; each crash makes it twice as long
    max_delay_s: float = 8.0
    stable_after_s: float = 300.0  # a flow that ran this long starts counting crashes from zero


@dataclass
class _SupervisedFlow:
    """One flow: its process and its crashes."""

    command: Sequence[str]
    log: Path
    log_start: int = 0  # size of the log before the process started
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0  # monotonic seconds
    crashes: int = 0
    restart_at: float | None = None  # monotonic seconds; None while it runs


@dataclass
class Supervisor:
    """Context manager that starts the flows on entry and stops them on exit; `check()` restarts crashed flows."""

    settings: Settings
    flows: Sequence[str] = FLOWS
    command: Sequence[str] = (sys.executable, "-P", "-m", "infra.cli.main", "run")
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    report: Callable[[str], object] = lambda line: None  # gets one line per crash
    is_hung: Callable[[str], bool] = lambda flow: False  # whether a running flow must be ended and started again
    _flows: dict[str, _SupervisedFlow] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        try:
            for name in self.flows:
                log = self.settings.data_dir / "logs" / f"{name}.log"
                self._flows[name] = _SupervisedFlow([*self.command, name], log)
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
        """Send SIGTERM to all (they drain and write a snapshot), and SIGKILL after 10 s to the remaining ones."""
        stop(*(flow.process for flow in self._flows.values() if flow.process))

    def check(self) -> None:
        """Detect flows that crashed or hang, and restart those whose delay is over.

        Raises ServiceError after too many crashes, and if a flow cannot run with these settings.
        """
        for name, flow in self._flows.items():
            if flow.restart_at is None and flow.process and flow.process.poll() is not None:
                self._schedule_restart(name, flow, _describe_exit(flow.process.returncode))
            elif flow.restart_at is None and flow.process and self.is_hung(name):
                stop(flow.process, timeout_s=0)
                self._schedule_restart(name, flow, "it did not answer or made no step, and was killed")
            elif flow.restart_at is not None and time.monotonic() >= flow.restart_at:
                self._start(flow)

    def pids(self) -> dict[str, int]:
        """The process id of each running flow."""
        processes = {name: flow.process for name, flow in self._flows.items() if flow.restart_at is None}
        return {name: process.pid for name, process in processes.items() if process and process.poll() is None}

    def restarts(self) -> dict[str, int]:
        """The number of crashes of each flow since it last ran `stable_after_s` seconds."""
        return {name: flow.crashes for name, flow in self._flows.items()}

    def _start(self, flow: _SupervisedFlow) -> None:
        flow.log_start = flow.log.stat().st_size if flow.log.exists() else 0
        with defer_signals():
            flow.process = spawn(flow.command, flow.log, {**os.environ, **self.settings.environment()})
        flow.started_at, flow.restart_at = time.monotonic(), None

    def _schedule_restart(self, name: str, flow: _SupervisedFlow, end: str) -> None:
        code, now = flow.process.returncode if flow.process else 0, time.monotonic()
        reason = "" if code == 0 else f" {_last_error(flow)}"  # code 0: somebody sent SIGTERM
        if code in _PERMANENT:
            raise ServiceError(f"{_PERMANENT[code]} {name} (log: {flow.log}).{reason}")
        flow.crashes = 1 if now - flow.started_at > self.restart_policy.stable_after_s else flow.crashes + 1
        limit = self.restart_policy.max_restarts
        if limit is not None and flow.crashes > limit:
            raise ServiceError(f"The flow {name} crashed {flow.crashes} times ({end}; log: {flow.log}).{reason}")
        delay = min(
            self.restart_policy.max_delay_s, self.restart_policy.first_delay_s * 2.0 ** min(flow.crashes - 1, 30)
        )
        flow.restart_at = now + delay
        ended = "crashed" if code else "ended"
        self.report(f"The flow {name} {ended} ({end}; log: {flow.log}) and starts again in {delay:g} s.{reason}")


def _describe_exit(code: int) -> str:
    if code == 0:
        return "exit code 0: it was asked to stop"
    return f"killed by {_signal_name(-code)}" if code < 0 else f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _last_error(flow: _SupervisedFlow) -> str:
    if found := last_error(flow.log, flow.log_start):
        return f"Its last error: {found}"
    if shutil.disk_usage(flow.log.parent).free < FULL_DISK_BYTES:
        return "It wrote no error: the disk of its log is almost full."
    return "It wrote no error."
