"""Checks in tests whether processes have ended."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 20.0


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_end(pids: Sequence[int]) -> bool:
    """Whether all these processes end within `TIMEOUT_S`."""
    deadline = time.monotonic() + TIMEOUT_S
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(is_alive(pid) for pid in pids)
