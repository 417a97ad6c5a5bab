"""Counts how often a worker of a flow started after an end that was not clean, across processes.

A process that crashes loses its metrics, so the count is in a file in the data folder. The supervisor does not matter:
`premiere up`, systemd or a container engine.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from prometheus_client import Gauge

FOLDER: Final = "starts"  # in data_dir
RESTARTS: Final = Gauge("premiere_flow_restarts", "Starts of this worker after a crash, since its data folder exists.")


@contextmanager
def counted_start(data_dir: Path, flow: str, worker: int) -> Iterator[None]:
    """Count a start; the end is clean if the context ends without an error."""
    file = data_dir / FOLDER / f"{flow}-{worker}.json"
    before = _read(file)
    restarts = int(before.get("restarts", 0)) + (before.get("running") is True)
    RESTARTS.set(restarts)
    _write(file, restarts, running=True)
    yield
    _write(file, restarts, running=False)


def restarts(data_dir: Path, flow: str) -> int:
    """How often workers of a flow started after a crash, from the files in the data folder."""
    return sum(int(_read(file).get("restarts", 0)) for file in (data_dir / FOLDER).glob(f"{flow}-*.json"))


def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(file.read_text())
        if isinstance(found, dict) and isinstance(found.get("restarts", 0), int):
            return found
    return {}


def _write(file: Path, restarts: int, running: bool) -> None:
    with suppress(OSError):  # a read-only folder or a full disk must not stop a flow
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(json.dumps({"restarts": restarts, "running": running}))
        new.replace(file)
