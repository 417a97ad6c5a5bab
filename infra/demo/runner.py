"""Runs the phases of the demo: titles, backlog, live part, settling.

Each phase waits for the flows. Every wait is bounded by progress: it ends with the last lines of the flows' logs if
nothing has moved for a long time.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from infra.data.datasets import Dataset
from infra.data.producer import DatasetProducer, ProduceProgress, ProduceRate
from infra.demo.closed_loop import WINDOW, ClosedLoop
from infra.demo.demo_client import DemoUsers, ListClient
from infra.demo.sampler import Sample, Sampler
from infra.demo.screen import ScreenState, ScreenStep, UserPortrait
from infra.demo.served_evaluation import ServedEvaluation
from infra.errors import PremiereError
from infra.local.processes import log_tail
from infra.local.session import Session
from infra.local.supervisor import FLOWS
from infra.monitor.metric_totals import mean_table, totals_since
from infra.monitor.status import processed_events
from streaming.records import Event

BACKLOG_SHARE: Final = 0.5  # of the events
MAX_STANDSTILL_S: Final = 180.0  # without any progress
MIN_LIVE_S: Final = 60.0  # minimum length of the live part
MAX_SETTLE_S: Final = 15.0  # for `publish` to write the last lists; nothing depends on it
MAX_IDLE_LAG_RECORDS: Final = 5  # an idle log still gets a tick each second, and commits come one epoch late
SCORE_INTERVAL_S: Final = 1.5  # the learner exports its scores at least this often
NAP_S: Final = 0.1  # between two checks whether a sample is due
PORTRAIT_HOLD_S: Final = 5.0  # time that a user stays on the screen


def backlog_events(data: Dataset) -> int:
    """Number of events before the live part."""
    return int(len(data) * BACKLOG_SHARE)


@dataclass(frozen=True)
class Pacing:
    """How fast the live part runs, and when it ends."""

    limit: int = 200  # live events in flight
    window: int = WINDOW  # events within which users run side by side
    speed: float | None = None  # multiple of the data's own pace
    until: float = float("inf")  # seconds on the demo's clock; the live part lasts at least MIN_LIVE_S


@dataclass
class DemoRunner:
    """Runs all phases and takes samples; `live_start` is the sample at which the live part began."""

    session: Session
    data: Dataset
    pacing: Pacing = Pacing()
    show: Callable[[ScreenState], object] = lambda screen_state: None
    clock: Callable[[], float] = time.monotonic  # seconds since the demo began
    phases: dict[str, float] = field(default_factory=dict)  # seconds by phase
    live_start: Sample | None = None

    def __post_init__(self) -> None:
        self.backlog_end = backlog_events(self.data)
        self.client = ListClient(self.session.redis, self.session.settings.namespace)
        self.demo_users = DemoUsers(self.client, self.data)
        self.served = ServedEvaluation(self.client.serve, repeats=not self.session.settings.filter_seen)
        self.stop = threading.Event()
        self.producer = DatasetProducer(
            self.data,
            self.session.settings.kafka_config(),
            ahead=self.pacing.window,
            progress=self._progress,
            stop=self.stop,
        )
        self.loop = ClosedLoop(self.data, self.client, self.backlog_end, self.pacing.window)
        self.sampler = Sampler(self.session.settings, self.session.lags, self.producer, self.served, self.clock)
        self._phase, self._portrait_since, self._user = "", float("-inf"), ""

    def run(self) -> None:
        """Run all phases. Raises PremiereError if nothing moves any more."""
        with self.producer:
            with self._timed("titles"):
                self.producer.launch_ahead()
                self._wait(lambda now: now.known >= now.launched, lambda now: now.known)
            with self._timed("backlog"):
                self.producer.produce(until=self.backlog_end, before=self._before(self.served.count))
                self._wait(lambda now: now.accounted >= now.produced, lambda now: now.accounted)
            self.live_start = self._sample_when_scores_settle()
            with self._timed("live"):
                pace = ProduceRate(
                    self.pacing.speed, in_flight=self._in_flight, limit=self.pacing.limit, timeout_s=MAX_STANDSTILL_S
                )
                before = self._before(self.served.score_and_count)
                self.producer.produce(pace=pace, before=before, take=self.loop.take)
            with self._timed("settling"):
                self._wait(lambda now: now.accounted >= now.produced, lambda now: now.accounted)
                self._settle()
                self._sample_when_scores_settle()

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        self._phase, began = phase, self.clock()
        self._tick()
        yield
        self.phases[phase] = self.clock() - began

    def _before(self, each: Callable[[Event], None]) -> Callable[[Event], None]:
        def before(event: Event) -> None:
            each(event)
            self.client.sent(event.user)

        return before

    def _progress(self, progress: ProduceProgress) -> None:
        self._tick()
        if self._live_seconds_left() < 0:
            self.stop.set()

    def _live_seconds_left(self) -> float:
        """Until the time limit ends the live part."""
        if self.live_start is None:
            return float("inf")
        return max(self.pacing.until, self.live_start.seconds + MIN_LIVE_S) - self.clock()

    def _in_flight(self) -> int:
        return self.producer.events - processed_events(self.session.settings)

    def _tick(self) -> None:
        """Check the flows and, once per second, take and show a sample."""
        self.session.flows.check()
        if self.sampler.due():
            self.sampler.sample(self._phase)
            self.show(self.screen_state())

    def _wait(self, done: Callable[[Sample], bool], progress: Callable[[Sample], int]) -> None:
        """Wait until `done`. Raises PremiereError if `progress` stands still for MAX_STANDSTILL_S."""
        most, moved = -1, self.clock()
        while not done(now := self.sampler.sample(self._phase)):
            self.show(self.screen_state())
            if progress(now) > most:
                most, moved = progress(now), now.seconds
            if now.seconds - moved > MAX_STANDSTILL_S:
                raise PremiereError(self._standstill(now))
            self._wait_for_next_sample()

    def _settle(self) -> None:
        deadline = self.clock() + MAX_SETTLE_S
        while max(self.sampler.sample(self._phase).lag.values()) > MAX_IDLE_LAG_RECORDS and self.clock() < deadline:
            self.show(self.screen_state())
            self._wait_for_next_sample()

    def _sample_when_scores_settle(self) -> Sample:
        """A sample with all scores: the learner exports scores less often than its progress."""
        deadline = self.clock() + MAX_SETTLE_S
        before, now = -1.0, self.sampler.samples[-1]
        while (scored := _scored(now)) != before and self.clock() < deadline:
            before = scored
            time.sleep(SCORE_INTERVAL_S)
            now = self.sampler.sample(self._phase)
        return now

    def _wait_for_next_sample(self) -> None:
        while not self.sampler.due():
            self.session.flows.check()
            time.sleep(NAP_S)

    def _standstill(self, now: Sample) -> str:
        waits = ", ".join(f"{name} {count}" for name, count in now.lag.items() if count)
        logs = {flow: log_tail(self.session.settings.data_dir / "logs" / f"{flow}.log", 4) for flow in FLOWS}
        ends = "\n".join(f"[{flow}] {text}" for flow, text in logs.items() if text)
        return (
            f"No progress for {MAX_STANDSTILL_S:g} s at '{self._phase}': {now.known} of {now.launched} titles known, "
            f"{now.accounted} of {now.produced} events accounted for (waiting: {waits or 'nothing'}). "
            f"The flows' logs end with:\n{ends}"
        )

    def screen_state(self) -> ScreenState:
        """What the screen shows after the newest sample."""
        now, sampler = self.sampler.samples[-1], self.sampler
        recent = sampler.recent()
        return ScreenState(
            data=self.data.name,
            simulated=self.data.simulated,
            seconds=now.seconds,
            phase=now.phase,
            steps=self._steps(now),
            rate=sampler.rate(lambda sample: sample.learned),
            in_flight=now.produced - now.accounted,
            lag=now.lag,
            latency={kind: now.latency[kind] - recent.latency[kind] for kind in now.latency},
            version=now.version,
            launches=now.launched,
            mrr=mean_table(totals_since(now.totals, self.live_start.totals))["mrr"] if self.live_start else {},
            portrait=self._portrait() if self.live_start else None,
        )

    def _steps(self, now: Sample) -> list[ScreenStep]:
        learned = self.sampler.rate(lambda sample: sample.accounted)
        known = self.sampler.rate(lambda sample: sample.known)
        parts = (
            ("titles", now.known, now.launched, known),
            ("backlog", min(now.accounted, self.backlog_end), self.backlog_end, 0.0 if self.live_start else learned),
            (
                "live",
                max(0, now.accounted - self.backlog_end),
                len(self.data) - self.backlog_end,
                learned if self.live_start else 0.0,
            ),
        )
        limit = max(0.0, self._live_seconds_left())
        return [
            ScreenStep(name, n, of, min((of - n) / rate, limit) if rate and n < of else None)
            for name, n, of, rate in parts
        ]

    def _portrait(self) -> UserPortrait | None:
        """A user with a recent event; the same one for some seconds, so that it can be read."""
        at = self.producer.events
        if self.clock() - self._portrait_since > PORTRAIT_HOLD_S and at:
            self._portrait_since, self._user = self.clock(), self.data.users[self.data.user[at - 1]]
        return self.demo_users.portrait(self._user) if self._user else None


def _scored(sample: Sample) -> float:
    """Events with an exported score."""
    return float(sample.totals["full"].scored[0]) if "full" in sample.totals else 0.0
