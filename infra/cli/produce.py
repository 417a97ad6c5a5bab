"""`premiere produce`: send a dataset into a running deployment, as its producers would."""

import time
from collections.abc import Callable
from typing import Final

from infra.data.datasets import Dataset
from infra.data.producer import DatasetProducer, ProduceProgress, ProduceRate
from infra.demo.screen import clock
from infra.monitor.scrape import scrape_flow
from infra.monitor.status import processed_events
from infra.settings import Settings

MAX_IN_FLIGHT: Final = 2000  # events, if neither speed nor rate is given: enough to keep all flows busy
PROGRESS_INTERVAL_S: Final = 5.0


class ProgressPrinter:
    """Prints the number of produced events, the rate and the estimated remaining time, at intervals."""

    def __init__(self, print_line: Callable[[str], object], interval: float = PROGRESS_INTERVAL_S) -> None:
        self._print_line, self._interval = print_line, interval
        self._started = self._printed = time.monotonic()

    def __call__(self, progress: ProduceProgress) -> None:
        """Report progress."""
        now = time.monotonic()
        if now - self._printed < self._interval and progress.events < progress.of:
            return
        self._printed = now
        rate = progress.events / max(now - self._started, 1e-9)
        remaining = progress.of - progress.events
        left = f", {clock(remaining / rate)} left" if rate and remaining > 0 else ""
        self._print_line(
            f"{progress.events:,} of {progress.of:,} events, {progress.launches:,} titles, {rate:,.0f} events/s{left}"
        )


def produce_dataset(
    settings: Settings,
    data: Dataset,
    print_line: Callable[[str], object],
    speed: float | None,
    rate: float | None,
) -> int:
    """Produce all events and launches of `data`, and return the number of events.

    `speed` is a multiple of the speed of the recorded events, `rate` is in events per second. With neither, the
    producer is as fast as the learner, or unlimited if the learner's metrics cannot be read. Raises ProduceError.
    """
    processed_before = processed_events(settings)
    learner_is_readable = scrape_flow(settings, "learn") is not None

    def in_flight() -> int:
        return producer.events - (processed_events(settings) - processed_before)

    limited = learner_is_readable and not (speed or rate)
    with DatasetProducer(data, settings.kafka_config(), progress=ProgressPrinter(print_line)) as producer:
        return producer.produce(pace=ProduceRate(speed, rate, in_flight if limited else None, MAX_IN_FLIGHT))
