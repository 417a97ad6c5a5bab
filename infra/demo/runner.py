"""A data set on its way through the running loop: its titles, its history, its live part, and what is left at the end.

Everything here waits for something that the flows do. So each wait is bounded by progress: while something moves it
goes on, and where nothing has moved for long it ends with what the flows' logs say.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from infra.data.datasets import DataSet
from infra.data.producer import DatasetProducer, ProduceProgress, ProduceRate
from infra.demo.demo_client import DemoUsers, ListClient
from infra.demo.sampler import Sample, Sampler
from infra.demo.screen import ScreenState, ScreenStep, UserPortrait
from infra.demo.served_evaluation import Served
from infra.errors import PremiereError
from infra.local.processes import tail
from infra.local.session import Session
from infra.local.supervisor import FLOWS
from infra.monitor.metric_totals import since, table
from infra.monitor.status import accounted
from streaming.records import Event

HISTORY: Final = 0.5  # share of the events that is history
PATIENCE: Final = 180.0  # seconds without any progress after which we give up
LEAST: Final = 60.0  # seconds of live part, whatever the history took
SETTLE: Final = 15.0  # seconds for `publish` to write what is left; nothing depends on it
TAKING: Final = 5  # messages of the log that never look taken: a tick a second, and commits come an epoch late
STILL: Final = 1.5  # seconds in which the learner tells its scores at least once: ticks wake it each second
NAP: Final = 0.1  # seconds between two looks at the clock
HOLD: Final = 5.0  # seconds that a viewer stays on the screen


@dataclass(frozen=True)
class Pacing:
    """How to go. limit: live events in flight · speed: times the data's own pace, live · until: seconds on the clock at
    which the live part ends, though not before it has lasted a minute."""

    limit: int = 200
    speed: float | None = None
    until: float = float("inf")


@dataclass
class DemoRunner:
    """`samples` of `watch` tell what happened; `mark` is the one at which the live part began."""

    loop: Session
    data: DataSet
    gait: Pacing = Pacing()
    show: Callable[[ScreenState], object] = lambda view: None
    clock: Callable[[], float] = time.monotonic  # seconds since the beginning
    phases: dict[str, float] = field(default_factory=dict)  # seconds that each took
    mark: Sample | None = None

    def __post_init__(self) -> None:
        self.half = int(len(self.data) * HISTORY)
        self.client = ListClient(self.loop.redis)
        self.viewers = DemoUsers(self.client, self.data)
        self.served = Served(self.client.serve, repeats=not self.loop.settings.filter_seen)
        self.stop = threading.Event()
        self.replay = DatasetProducer(self.data, self.loop.settings.kafka(), progress=self._progress, stop=self.stop)
        self.watch = Sampler(self.loop.settings, self.loop.lags, self.replay, self.served, self.clock)
        self._phase, self._held, self._user = "", float("-inf"), ""

    def run(self) -> None:
        """All of it. Raises PremiereError where it does not go on."""
        with self.replay:
            with self._timed("titles"):
                self.replay.launch_ahead()
                self._wait(lambda now: now.known >= now.launched, lambda now: now.known)
            with self._timed("history"):
                self.replay.play(until=self.half, before=self._before(self.served.count))
                self._wait(lambda now: now.accounted >= now.produced, lambda now: now.accounted)
            self.mark = self._still()
            with self._timed("live"):
                pace = ProduceRate(self.gait.speed, in_flight=self._in_flight, limit=self.gait.limit, patience=PATIENCE)
                self.replay.play(pace=pace, before=self._before(self.served.watch))
            with self._timed("settling"):
                self._wait(lambda now: now.accounted >= now.produced, lambda now: now.accounted)
                self._settle()
                self._still()

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
        if self.mark and self.clock() > max(self.gait.until, self.mark.seconds + LEAST):
            self.stop.set()

    def _in_flight(self) -> int:
        return self.replay.events - accounted(self.loop.settings)

    def _tick(self) -> None:
        """Whatever has to happen all the time."""
        self.loop.flows.check()
        if self.watch.due():
            self.watch.sample(self._phase)
            self.show(self.view())

    def _wait(self, done: Callable[[Sample], bool], progress: Callable[[Sample], int]) -> None:
        """Until a new sample says so. Raises PremiereError where nothing moves any more."""
        most, moved = -1, self.clock()
        while not done(now := self.watch.sample(self._phase)):
            self.show(self.view())
            if progress(now) > most:
                most, moved = progress(now), now.seconds
            if now.seconds - moved > PATIENCE:
                raise PremiereError(self._standstill(now))
            self._nap()

    def _settle(self) -> None:
        deadline = self.clock() + SETTLE
        while max(self.watch.sample(self._phase).lag.values()) > TAKING and self.clock() < deadline:
            self.show(self.view())
            self._nap()

    def _still(self) -> Sample:
        """The sample after which no score changes: the learner tells its scores less often than its progress."""
        deadline = self.clock() + SETTLE
        before, now = -1.0, self.watch.samples[-1]
        while (scored := _scored(now)) != before and self.clock() < deadline:
            before = scored
            time.sleep(STILL)
            now = self.watch.sample(self._phase)
        return now

    def _nap(self) -> None:
        while not self.watch.due():
            self.loop.flows.check()
            time.sleep(NAP)

    def _standstill(self, now: Sample) -> str:
        waits = ", ".join(f"{name} {count}" for name, count in now.lag.items() if count)
        logs = {flow: tail(self.loop.settings.data_dir / "logs" / f"{flow}.log", 4) for flow in FLOWS}
        ends = "\n".join(f"[{flow}] {text}" for flow, text in logs.items() if text)
        return (
            f"Nothing has moved for {PATIENCE:g} s at '{self._phase}': {now.known} of {now.launched} titles are known, "
            f"{now.accounted} of {now.produced} events accounted for (waiting: {waits or 'nothing'}). "
            f"The flows' logs end with:\n{ends}"
        )

    def view(self) -> ScreenState:
        """What there is to see after the newest sample."""
        now, watch = self.watch.samples[-1], self.watch
        lately = watch.lately()
        return ScreenState(
            data=self.data.name,
            simulated=self.data.simulated,
            seconds=now.seconds,
            phase=now.phase,
            steps=self._steps(now),
            rate=watch.rate(lambda sample: sample.learned),
            in_flight=now.produced - now.accounted,
            lag=now.lag,
            freshness={kind: now.freshness[kind] - lately.freshness[kind] for kind in now.freshness},
            version=now.version,
            launches=now.launched,
            mrr=table(since(now.tally, self.mark.tally))["mrr"] if self.mark else {},
            viewer=self._viewer() if self.mark else None,
        )

    def _steps(self, now: Sample) -> list[ScreenStep]:
        learned = self.watch.rate(lambda sample: sample.accounted)
        known = self.watch.rate(lambda sample: sample.known)
        parts = (
            ("titles", now.known, now.launched, known),
            ("history", min(now.accounted, self.half), self.half, 0.0 if self.mark else learned),
            ("live", max(0, now.accounted - self.half), len(self.data) - self.half, learned if self.mark else 0.0),
        )
        return [ScreenStep(name, n, of, (of - n) / rate if rate and n < of else None) for name, n, of, rate in parts]

    def _viewer(self) -> UserPortrait | None:
        """Somebody who acted just now; the same for some seconds, so that one can read."""
        at = self.replay.events
        if self.clock() - self._held > HOLD and at:
            self._held, self._user = self.clock(), self.data.users[self.data.user[at - 1]]
        return self.viewers.look(self._user, at) if self._user else None


def _scored(sample: Sample) -> float:
    """Events that the learner has told the scores of."""
    return float(sample.tally["full"].scored[0]) if "full" in sample.tally else 0.0
