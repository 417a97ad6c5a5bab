"""The phase in which a flow compiles its numeric code: a minute at the first start on a machine, then a second."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from streaming import phase

log: Final = logging.getLogger(__name__)


@contextmanager
def compiling() -> Iterator[None]:
    """The flow compiles during the context."""
    phase.enter(phase.Phase.COMPILING)
    log.info("Compiling numeric code, or loading it from the cache: up to some minutes at the first start.")
    began = time.monotonic()
    yield
    log.info("Compiled after %.1f s.", time.monotonic() - began)
    phase.enter(phase.Phase.STARTING)
