"""What a flow does now: it starts, compiles, catches up with its topics, or is ready.

Ready means that the flow's output is current: `publish` serves a model version, and the other flows have read
everything that was in their topics when they started.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import ClassVar, Final

from prometheus_client import Enum


class Phase(StrEnum):
    """The phases, in their usual order."""

    STARTING = "starting"
    COMPILING = "compiling"
    CATCHING_UP = "catching up"
    READY = "ready"


METRIC: Final = Enum("premiere_flow_phase", "What the flow does now.", states=[str(phase) for phase in Phase])
log: Final = logging.getLogger(__name__)


class _State:
    """The phase of the flow in this process, and the partitions that it has not read to their end yet."""

    phase = Phase.STARTING
    is_ready_at_end = False
    unread: ClassVar[set[tuple[str, int]]] = set()  # topic, partition


def current() -> Phase:
    """The phase of the flow in this process."""
    return _State.phase


def enter(phase: Phase) -> None:
    """The flow enters a phase."""
    _State.phase, _State.is_ready_at_end = phase, False
    METRIC.state(phase)


@contextmanager
def compiling() -> Iterator[None]:
    """The flow compiles during the context: a minute at the first start on a machine, then about a second."""
    enter(Phase.COMPILING)
    log.info("Compiling numeric code, or loading it from the cache: up to some minutes at the first start.")
    began = time.monotonic()
    yield
    log.info("Compiled after %.1f s.", time.monotonic() - began)
    enter(Phase.STARTING)


def catch_up(is_ready_at_end: bool = True) -> None:
    """The flow reads its topics; at their end it is ready, unless its output needs more than that."""
    enter(Phase.CATCHING_UP)
    _State.is_ready_at_end = is_ready_at_end


def reads(topic: str, partition: int, offset: int) -> None:
    """The flow begins to read a partition."""
    log.info("Reading %s[%d] from offset %d.", topic, partition, offset)
    _State.unread.add((topic, partition))


def reached_end(topic: str, partition: int) -> None:
    """The flow has read a partition to its present end."""
    _State.unread.discard((topic, partition))
    if not _State.unread and _State.is_ready_at_end:
        enter(Phase.READY)
        log.info("All topics are read to their end.")
