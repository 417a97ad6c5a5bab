"""The loop looked at once a second: samples that the demo's screen shows and its report draws.

A sample holds only what is drawn, so that an hour of them stays small. Rates, recent freshness and the live part's
means are differences of two samples.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from infra.data.producer import DatasetProducer
from infra.demo.served_evaluation import Served
from infra.monitor import metric_totals as tally
from infra.monitor.lag import Lags
from infra.monitor.scrape import Histogram
from infra.monitor.status import KINDS, Status, look
from infra.settings import Settings

EVERY: Final = 1.0  # seconds between two samples
RECENT: Final = 15.0  # seconds that "lately" means
MOST: Final = 20_000  # samples: beyond it every other one is dropped


class Sample(NamedTuple):
    """The loop at one moment; counts since the demo began."""

    seconds: float  # since the demo began
    phase: str
    produced: int  # events
    launched: int  # titles produced
    known: int  # launches that the flow `titles` has durably taken
    learned: int  # events
    accounted: int  # events learned, dropped as doubles or dead-lettered
    lag: Mapping[str, int]  # "flow < topic" -> messages
    freshness: Mapping[str, Histogram]  # by kind
    version: int | None
    tally: tally.Tally


class Sampler:
    """Takes samples of a replay into the loop. Its clock starts with it."""

    def __init__(
        self, settings: Settings, lags: Lags, replay: DatasetProducer, served: Served, clock: Callable[[], float]
    ) -> None:
        self.samples: list[Sample] = []
        self.status = Status()  # the newest
        self._settings, self._lags, self._replay, self._served = settings, lags, replay, served
        self._clock, self._every = clock, EVERY

    def due(self) -> bool:
        """Whether the last sample is old."""
        return not self.samples or self._clock() - self.samples[-1].seconds >= self._every

    def sample(self, phase: str) -> Sample:
        """Look now. Raises TopicError where Kafka does not answer."""
        self.status = now = look(self._settings, self._lags)
        waiting = now.waiting("titles", "title-launches")
        last = self.samples[-1] if self.samples else None
        learner = tally.of_learner(now.page("learn")) or (last.tally if last else {})
        taken = Sample(
            seconds=self._clock(),
            phase=phase,
            produced=self._replay.events,
            launched=self._replay.launches,
            known=max(0, self._replay.launches - waiting),
            learned=now.learned,
            accounted=now.accounted,
            lag=now.lag(),
            freshness={kind: now.freshness(kind) for kind in KINDS},
            version=now.version,
            tally={**learner, "served": tally.of_ranking(self._served.ranking)},
        )
        self._keep(taken)
        return taken

    def rate(self, count: Callable[[Sample], int]) -> float:
        """What is counted, a second, lately."""
        then, now = self.lately(), self.samples[-1]
        return max(0.0, (count(now) - count(then)) / max(now.seconds - then.seconds, 1e-9))

    def lately(self) -> Sample:
        """The sample of `RECENT` seconds ago, or the first of this phase where that is later; or the newest."""
        now = self.samples[-1]
        since = now.seconds - RECENT
        return next(s for s in self.samples[-200:] if s.phase == now.phase and s.seconds >= since)

    def _keep(self, sample: Sample) -> None:
        self.samples.append(sample)
        if len(self.samples) > MOST:
            del self.samples[1::2]
            self._every *= 2
