"""A warning that is logged at most once a minute, however often its cause occurs."""

import logging
import time
from collections.abc import Callable
from typing import Final

WARNING_INTERVAL_S: Final = 60.0


class RateLimitedWarning:
    """Logs one kind of warning."""

    def __init__(self, log: logging.Logger, message: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._message, self._clock = log, message, clock
        self._warned_at = float("-inf")

    def warn(self, *values: object) -> None:
        """Log the message with these values, unless it was logged less than a minute ago."""
        if (now := self._clock()) - self._warned_at >= WARNING_INTERVAL_S:
            self._warned_at = now
            self._log.warning(self._message, *values)
