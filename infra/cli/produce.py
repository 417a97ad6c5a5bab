"""`premiere replay`: a data set into a loop that runs already, as its producers would have sent it."""

import time
from collections.abc import Callable
from typing import Final

from infra.data.datasets import DataSet
from infra.data.producer import DatasetProducer, ProduceProgress, ProduceRate
from infra.demo.screen import clock
from infra.monitor.scrape import read
from infra.monitor.status import accounted
from infra.settings import Settings

LIMIT: Final = 2000  # events in flight where no pace is given: enough that nothing idles
EVERY: Final = 5.0  # seconds between two lines


class Teller:
    """Says now and then how far a replay is, and how long it still takes."""

    def __init__(self, say: Callable[[str], object], every: float = EVERY) -> None:
        self._say, self._every = say, every
        self._began = self._told = time.monotonic()

    def __call__(self, now: ProduceProgress) -> None:
        """Take note of progress."""
        at = time.monotonic()
        if at - self._told < self._every and now.events < now.of:
            return
        self._told = at
        rate = now.events / max(at - self._began, 1e-9)
        left = f", {clock((now.of - now.events) / rate)} left" if rate and now.events < now.of else ""
        self._say(f"{now.events:,} of {now.of:,} events, {now.launches:,} titles, {rate:,.0f} events/s{left}")


def play(
    settings: Settings, data: DataSet, say: Callable[[str], object], speed: float | None, rate: float | None
) -> int:
    """Produce all of it, at `speed` times the data's own pace or at `rate` events/s, else as fast as the learner goes.

    Without metrics to read, nothing holds it back. How many events there were. Raises ReplayError.
    """
    began, learns = accounted(settings), read(settings, "learn") is not None

    def in_flight() -> int:
        return replay.events - (accounted(settings) - began)

    held = learns and not (speed or rate)
    with DatasetProducer(data, settings.kafka(), progress=Teller(say)) as replay:
        return replay.play(pace=ProduceRate(speed, rate, in_flight if held else None, LIMIT))
