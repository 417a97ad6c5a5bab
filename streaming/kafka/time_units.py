"""Recognizes producers that send event times in another unit than milliseconds.

A time in seconds is a valid time in milliseconds, in January 1970. Single events before 1980 are accepted and counted,
because a history may be old. If most of a partition's last events are so old, the producer's unit is wrong.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter

from streaming.rate_limited_warning import RateLimitedWarning

OLD_MS: Final = 315_532_800_000  # 1980-01-01
WINDOW: Final = 100  # events of a partition
MAX_SECONDS: Final = OLD_MS // 100  # a value up to this is a time in seconds until the year 2069

OLD_EVENTS: Final = Counter("premiere_old_events_total", "Events with a time before 1980: the unit may be wrong.")

log: Final = logging.getLogger(__name__)


class TimeUnits:
    """The share of old event times in the last events of each partition that this process reads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._old: dict[int, deque[bool]] = {}  # partition -> whether each of the last events is old
        self._warning = RateLimitedWarning(log, "An event in partition %d has an old time: %s.", clock)

    def problem(self, partition: int, ts: int) -> str | None:
        """Note an event's time. Returns the reason to refuse the event, or None."""
        window = self._old.setdefault(partition, deque(maxlen=WINDOW))
        window.append(ts < OLD_MS)
        if ts >= OLD_MS:
            return None
        OLD_EVENTS.inc()
        hint = f"{ts} ms is before 1980" + (
            ": it looks like seconds; multiply by 1000" if 0 < ts <= MAX_SECONDS else ""
        )
        self._warning.warn(partition, hint)
        return f"unit: {hint}" if sum(window) > WINDOW // 2 else None
