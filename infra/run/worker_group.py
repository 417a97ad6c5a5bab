"""Runs a flow as several processes (`premiere run FLOW --workers N`), which start and stop together.

`features` and `titles` form a Bytewax cluster: state is partitioned by key, topics by partition, and if one process is
killed, the others exit immediately (measured). `publish` runs N independent processes, each for its shard of the users.
The parent process only supervises: it forwards SIGTERM, and if a worker dies, it stops the others and exits with an
error, so that its own supervisor restarts the whole group.
"""

import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import Final

from infra.doctor.command import refuse_start
from infra.errors import FlowOwnedError, PremiereError, ServiceError, SettingsError
from infra.local.embedded import LOOPBACK
from infra.local.last_error import START_MESSAGE
from infra.local.processes import spawn, stop
from infra.run.logs import configure_logs
from infra.run.workers import SINGLE_WORKER, Worker, stop_on_signals
from infra.settings import Settings

CLUSTERED_FLOWS: Final = ("features", "titles")
POLL_INTERVAL_S: Final = 0.2  # between two checks for dead workers
DRAIN_TIMEOUT_S: Final = 9.0  # for all workers to drain: less than the supervisor's timeout
DRAIN_TIMEOUT_AFTER_CRASH_S: Final = 2.0  # the rest of a cluster cannot drain without the dead worker

log: Final = logging.getLogger(__name__)


def start_flow(
    flow: str, settings: Settings, workers: int | None, process: int | None, addresses: tuple[str, ...]
) -> None:
    """Run a flow, or one worker of it, until SIGTERM or Ctrl-C. Raises SettingsError for invalid options.

    Every other error is the last message in the log. Raises SystemExit with its exit code then.
    """
    count = workers or len(addresses) or settings.worker_count(flow)
    _check_options(flow, count, process, addresses)
    configure_logs(settings, flow, process or 0)
    try:
        if process is None:
            refuse_start(settings, [flow])
        if process is None and count > 1:
            run_group(flow, settings, count)
        else:
            from infra.run.runner import run

            log.info("%s %s.", START_MESSAGE, settings.data_dir.resolve())
            run(flow, settings, SINGLE_WORKER if process is None else Worker(process, count, addresses))
            log.info("Stopped.")
    except PremiereError as error:
        log.critical("%s", error)
        raise SystemExit(error.exit_code) from None
    except Exception:
        log.critical("An unexpected error ended the flow.", exc_info=True)
        raise SystemExit(1) from None


def run_group(flow: str, settings: Settings, count: int) -> None:
    """Run all workers of a flow on this machine. Raises ServiceError if a worker ends without a request to stop."""
    stopping = threading.Event()
    stop_on_signals(stopping)
    children: list[subprocess.Popen[bytes]] = []
    env = {**os.environ, **settings.environment()}
    timeout_s = DRAIN_TIMEOUT_AFTER_CRASH_S
    try:
        for command in worker_commands(flow, count):
            children.append(spawn(command, None, env))
        while not stopping.wait(POLL_INTERVAL_S) and all(child.poll() is None for child in children):
            pass
        if stopping.is_set():
            timeout_s = DRAIN_TIMEOUT_S
    finally:
        codes_before_stop = [child.poll() for child in children]
        stop(*children, timeout_s=timeout_s)
    codes = [child.returncode for child in children] if stopping.is_set() else codes_before_stop
    # Killed workers (negative codes) come first: the other workers of a cluster exit with 1 because of them.
    failed = sorted((code, i) for i, code in enumerate(codes) if code or (code == 0 and not stopping.is_set()))
    if FlowOwnedError.exit_code in codes:
        raise FlowOwnedError(f"Another process owns a worker of {flow}, and all workers were stopped.")
    if SettingsError.exit_code in codes:
        raise SettingsError(f"A worker of {flow} refused to start: see its message above.")
    if failed:
        raise ServiceError(_describe_exit(flow, *failed[0]))


def worker_commands(flow: str, count: int) -> list[list[str]]:
    """The command line of each worker."""
    command = [sys.executable, "-P", "-m", "infra.cli.main", "run", flow, "--workers", str(count)]
    addresses = ["--addresses", ",".join(_free_addresses(count))] if flow in CLUSTERED_FLOWS else []
    return [[*command, "--process", str(index), *addresses] for index in range(count)]


def _free_addresses(count: int) -> list[str]:
    """Addresses with free loopback ports; all ports are bound at the same time, so that they differ."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((LOOPBACK, 0))
        return [f"{LOOPBACK}:{listener.getsockname()[1]}" for listener in listeners]


def _check_options(flow: str, count: int, process: int | None, addresses: tuple[str, ...]) -> None:
    """Raises SettingsError for invalid combinations of options."""
    if flow == "learn" and (count, process, addresses) != (1, None, ()):
        raise SettingsError(
            "The flow learn runs as one process, since its log has one order. Raise PREMIERE_THREADS instead."
        )
    if addresses and (flow not in CLUSTERED_FLOWS or process is None):
        raise SettingsError("--addresses is for one worker of features or titles. Give its --process too.")
    if addresses and len(addresses) != count:
        raise SettingsError(f"There are {len(addresses)} --addresses for {count} workers. Give one for each worker.")
    if flow in CLUSTERED_FLOWS and process is not None and not addresses:
        raise SettingsError(f"A worker of {flow} needs the --addresses of all workers, in the same order for each.")
    if process is not None and process >= count:
        raise SettingsError(f"--process {process} does not exist: {count} workers are numbered from 0 to {count - 1}.")


def _describe_exit(flow: str, code: int, index: int) -> str:
    reason = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
    return f"Worker {index} of {flow} {reason}, and the others were stopped. Start the flow again to continue."
