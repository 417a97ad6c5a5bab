"""Samples the flows once per second, for the demo's screen and report.

A sample holds only what is drawn, so that an hour of samples stays small. Rates, recent latency and the metrics of the
live part are differences of two samples.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from infra.data.producer import DatasetProducer
from infra.demo.served_evaluation import ServedEvaluation
from infra.monitor import metric_totals as totals
from infra.monitor.lag import LagReader
from infra.monitor.scrape import Histogram
from infra.monitor.status import RECORD_KINDS, Status, read_status
from infra.settings import Settings

SAMPLE_INTERVAL_S: Final = 1.0
RECENT_S: Final = 15.0  # window of rates and of recent latency
MAX_SAMPLES: Final = 20_000  # beyond it, every other sample is dropped


class Sample(NamedTuple):
    """The flows at one moment; counts since the demo began."""

    seconds: float  # since the demo began
    phase: str
    produced: int  # events
    launched: int  # titles produced
    known: int  # launches that the flow `titles` has committed
    learned: int  # events
    accounted: int  # events learned, dropped as duplicates, or dead-lettered
    lag: Mapping[str, int]  # "flow < topic" -> records
    latency: Mapping[str, Histogram]  # by kind
    version: int | None
    totals: totals.MetricTotals


class Sampler:
    """Takes samples while a dataset is produced."""

    def __init__(
        self,
        settings: Settings,
        lags: LagReader,
        producer: DatasetProducer,
        served: ServedEvaluation,
        clock: Callable[[], float],
    ) -> None:
        self.samples: list[Sample] = []
        self.status = Status()  # the newest
        self._settings, self._lags, self._producer, self._served = settings, lags, producer, served
        self._clock, self._every = clock, SAMPLE_INTERVAL_S

    def due(self) -> bool:
        """Whether the next sample is due."""
        return not self.samples or self._clock() - self.samples[-1].seconds >= self._every

    def sample(self, phase: str) -> Sample:
        """Take a sample. Raises TopicError if Kafka does not answer."""
        self.status = now = read_status(self._settings, self._lags)
        waiting = now.lag_records("titles", "title-launches")
        last = self.samples[-1] if self.samples else None
        learner = totals.learner_totals(now.scrape("learn")) or (last.totals if last else {})
        taken = Sample(
            seconds=self._clock(),
            phase=phase,
            produced=self._producer.events,
            launched=self._producer.launches,
            known=max(0, self._producer.launches - waiting),
            learned=now.learned,
            accounted=now.processed_events,
            lag=now.lag_by_topic(),
            latency={kind: now.end_to_end_latency(kind) for kind in RECORD_KINDS},
            version=now.version,
            totals={**learner, "served": totals.sums_of(self._served.ranking)},
        )
        self._keep(taken)
        return taken

    def rate(self, count: Callable[[Sample], int]) -> float:
        """Recent increase of a count per second."""
        then, now = self.recent(), self.samples[-1]
        return max(0.0, (count(now) - count(then)) / max(now.seconds - then.seconds, 1e-9))

    def recent(self) -> Sample:
        """The sample RECENT_S ago, or the first of this phase if that is later."""
        now = self.samples[-1]
        since = now.seconds - RECENT_S
        return next(s for s in self.samples[-200:] if s.phase == now.phase and s.seconds >= since)

    def _keep(self, sample: Sample) -> None:
        self.samples.append(sample)
        if len(self.samples) > MAX_SAMPLES:
            del self.samples[1::2]
            self._every *= 2
