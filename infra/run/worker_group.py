"""A flow as several processes: `premiere run FLOW --workers N` starts them, and they live and die together.

`features` and `titles` are a cluster of the engine: state is spread by key, topics by partition, and where one process
is killed the others end at once (measured). `publish` is N processes that do not talk to each other, each for its own
share of the viewers. Either way the parent does no work of its own: it passes on SIGTERM, and where a worker dies it
stops the others and ends with an error, so that whoever supervises it starts the whole set again.
"""

import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import Final

from infra.errors import ServiceError, SettingsError
from infra.local.embedded import HOST
from infra.local.processes import spawn, stop
from infra.run.workers import Worker, stop_on_signals
from infra.settings import Settings

CLUSTERS: Final = ("features", "titles")
STEP: Final = 0.2  # seconds between two looks at the workers
PATIENCE: Final = 9.0  # seconds for all to drain: less than whoever supervises us waits
AFTER_A_DEATH: Final = 2.0  # seconds: what is left of a cluster has nothing to drain, and may wait for the dead in vain


def start(flow: str, settings: Settings, workers: int | None, process: int | None, addresses: tuple[str, ...]) -> None:
    """Run a flow, or one worker of it, until it is asked to stop. Raises PremiereError."""
    from infra.run.runner import run

    count = workers or len(addresses) or settings.workers(flow)
    _check(flow, count, process, addresses)
    if process is not None:
        run(flow, settings, Worker(process, count, addresses))
    elif count == 1:
        run(flow, settings)
    else:
        together(flow, settings, count)


def together(flow: str, settings: Settings, count: int) -> None:
    """All workers of a flow on this machine. Raises ServiceError where one ends that was not asked to."""
    asked = threading.Event()
    stop_on_signals(asked)
    children: list[subprocess.Popen[bytes]] = []
    env = {**os.environ, **settings.environment()}
    patience = AFTER_A_DEATH
    try:
        for command in commands(flow, count):
            children.append(spawn(command, None, env))
        while not asked.wait(STEP) and all(child.poll() is None for child in children):
            pass
        if asked.is_set():
            patience = PATIENCE
    finally:
        ended = [child.poll() for child in children]
        stop(*children, patience=patience)
    codes = [child.returncode for child in children] if asked.is_set() else ended
    # A killed one first: the others of a cluster end with 1 after it.
    if bad := sorted((code, i) for i, code in enumerate(codes) if code or (code == 0 and not asked.is_set())):
        raise ServiceError(_sentence(flow, *bad[0]))


def commands(flow: str, count: int) -> list[list[str]]:
    """The command of each worker."""
    own = [sys.executable, "-m", "infra.cli.main", "run", flow, "--workers", str(count)]
    found = ["--addresses", ",".join(_addresses(count))] if flow in CLUSTERS else []
    return [[*own, "--process", str(index), *found] for index in range(count)]


def _addresses(count: int) -> list[str]:
    """Free ports on loopback: all held at once, so that they differ."""
    with ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((HOST, 0))
        return [f"{HOST}:{listener.getsockname()[1]}" for listener in listeners]


def _check(flow: str, count: int, process: int | None, addresses: tuple[str, ...]) -> None:
    """Raises SettingsError for what cannot be."""
    if flow == "learn" and (count, process, addresses) != (1, None, ()):
        raise SettingsError("The flow learn is one process: its log has one order; give it PREMIERE_THREADS instead.")
    if addresses and (flow not in CLUSTERS or process is None):
        raise SettingsError("--addresses belong to one worker of features or titles: give its --process too.")
    if addresses and len(addresses) != count:
        raise SettingsError(f"There are {len(addresses)} --addresses for {count} workers: give one for each.")
    if flow in CLUSTERS and process is not None and not addresses:
        raise SettingsError(f"A worker of {flow} needs the --addresses of all, in the same order everywhere.")
    if process is not None and process >= count:
        raise SettingsError(f"--process {process} is none of {count} workers: they are counted from 0.")


def _sentence(flow: str, code: int, index: int) -> str:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"Worker {index} of {flow} {how}, so the others were stopped: start the flow again; it goes on where it was."
