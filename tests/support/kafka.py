"""Shared by tests."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

OwnKafka = Callable[[Path], AbstractContextManager[str]]  # a folder: a broker's address while the context lasts


def _home() -> Path | None:
    """An Apache Kafka that can be run here."""
    home = Path(os.environ.get("KAFKA_HOME", "/nonexistent"))
    java = os.environ.get("JAVA_HOME") or shutil.which("java")
    return home if java and (home / "bin" / "kafka-server-start.sh").exists() else None


HOME: Final = _home()
