"""Kill -9 to each flow at random moments of a replay, then count what was lost, doubled or different.

`make chaos` (SEED=, BROKER=embedded, apache or both): an undisturbed run of the same audience says what must be there;
a run in which every flow is killed again and again must end with the same offline rows, the same histories in Redis
and Feast and the same number of events learned. The learner's last checkpoint must equal, bit for bit, that of a fresh
learner which reads the log that the disturbed run left. Where the broker keeps its data, it and a Redis that does are
also taken away for a minute each, in the middle of a replay. All that is counted goes to chaos.json.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from infra.data.datasets import DataSet
from infra.data.producer import DatasetProducer, ProduceRate
from infra.data.simulate import simulate
from infra.local.embedded import free_port, start_kafka, start_redis
from infra.local.session import Session
from infra.local.supervisor import FLOWS
from tests.support.chaos import PATIENCE, Counts, Disturb, Found, Say, compare, run, settings, settle

RATE: Final = 30.0  # events/s while flows are killed: a kill every few seconds, and something to lose at each
TITLES: Final = 300


class Report(NamedTuple):
    """What one disturbed run came to."""

    counts: dict[str, Counts]
    repeated: int

    def as_json(self) -> dict[str, Any]:
        """In plain values."""
        return {**{kind: asdict(counts) for kind, counts in self.counts.items()}, "repeated in the log": self.repeated}


class Kills:
    """So many of each flow, in a random order, each at a random moment of an equal part of the replay."""

    def __init__(self, each: int, seed: int, rate: float = RATE) -> None:
        self.random, self.rate = random.Random(seed), rate
        self.order = [flow for flow in FLOWS for _ in range(each)]
        self.random.shuffle(self.order)

    def __call__(self, loop: Session, replay: DatasetProducer, until: int, say: Say) -> None:
        """Play on."""
        begin, size = replay.events, until - replay.events
        for number, flow in enumerate(self.order):
            first, last = (begin + size * k // len(self.order) for k in (number, number + 1))
            replay.play(self.random.randrange(first, last), ProduceRate(rate=self.rate))
            _kill(loop, flow)
            replay.play(last, ProduceRate(rate=self.rate))
            say(f"kill {number + 1} of {len(self.order)}: {flow}; {replay.events:,} events sent")


def _kill(loop: Session, flow: str) -> None:
    """SIGKILL, to a flow that runs: one that is down is waited for."""
    give_up = time.monotonic() + PATIENCE
    while flow not in loop.flows.pids():
        loop.flows.check()
        time.sleep(0.01)
        assert time.monotonic() < give_up, f"{flow} was not started again"
    os.kill(loop.flows.pids()[flow], signal.SIGKILL)
    time.sleep(0.05)
    loop.flows.check()


class Outage:
    """A service goes away for `seconds` when half of the events are sent, and comes back with what it had."""

    def __init__(self, service: "Service", seconds: float, rate: float = 100.0) -> None:
        self.service, self.seconds, self.rate = service, seconds, rate

    def __call__(self, loop: Session, replay: DatasetProducer, until: int, say: Say) -> None:
        """Play on; while Kafka is away nothing can be sent."""
        half = (replay.events + until) // 2
        replay.play(half, ProduceRate(rate=self.rate))
        settle(loop, half, say)
        before = loop.flows.pids()
        self.service.stop()
        say(f"{self.service.name} is gone for {self.seconds:g} s")
        end = time.monotonic() + self.seconds
        if self.service.home is None:
            replay.play(min(until, half + int(self.rate * self.seconds / 2)), ProduceRate(rate=self.rate))
        while time.monotonic() < end:
            loop.flows.check()
            time.sleep(0.1)
        self.service.start()
        say(f"{self.service.name} is back")
        replay.play(until, ProduceRate(rate=self.rate))
        assert loop.flows.pids() == before, "a flow did not wait"


class Several:
    """One after the other, each in an equal part of the replay."""

    def __init__(self, *parts: Disturb) -> None:
        self.parts = parts

    def __call__(self, loop: Session, replay: DatasetProducer, until: int, say: Say) -> None:
        """Play on."""
        begin, size = replay.events, until - replay.events
        for number, part in enumerate(self.parts, 1):
            part(loop, replay, begin + size * number // len(self.parts), say)


class Service:
    """A broker or a Redis that can be stopped and started again at the same address."""

    def __init__(self, name: str, folder: Path, home: Path | None) -> None:
        self.name, self.folder, self.home, self.port = name, folder, home, free_port()
        self.address = self.start()

    def start(self) -> str:
        """Start it; its address."""
        started: AbstractContextManager[str] = (
            start_kafka(self.folder, self.home)
            if self.name == "Kafka"
            else start_redis(self.folder, self.port, keep=True)
        )
        self._context = started
        return started.__enter__()

    def stop(self) -> None:
        """Stop it."""
        self._context.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()


def stage(name: str, folder: Path, data: DataSet, want: Found, disturb: Disturb, say: Say, **given: Any) -> Report:
    """One disturbed run, compared."""
    say(f"{name}:")
    found = run(settings(folder, **given), data, disturb, say)
    return Report(compare(want, found), found.repeated)


def stages(home: Path | None, options: argparse.Namespace, folder: Path, say: Say) -> Iterator[tuple[str, Report]]:
    """Every disturbed run on one broker, beside one undisturbed run."""
    data = simulate(users=options.events // 20, titles=TITLES, events=options.events, days=60, seed=options.seed)
    given: dict[str, Any] = {"kafka_home": home}
    say("undisturbed:")
    want = run(settings(folder / "undisturbed", **given), data, None, say)
    kills = Kills(options.kills, options.seed)
    yield "kills", stage("kills", folder / "kills", data, want, kills, say, **given)
    if not options.outage:
        return
    with Service("Redis", folder / "redis", None) as redis:
        away = Outage(redis, options.outage)
        yield "Redis away", stage("Redis away", folder / "1", data, want, away, say, **given, redis_url=redis.address)
    if home is None:
        return  # the embedded broker keeps nothing
    with Service("Kafka", folder / "kafka", home) as kafka:
        away = Outage(kafka, options.outage)
        at = {"bootstrap_servers": kafka.address}
        yield "Kafka away", stage("Kafka away", folder / "2", data, want, away, say, **given, **at)


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 where nothing was lost, doubled or different."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--broker", choices=("embedded", "apache", "both"), default="embedded")
    parse.add_argument("--kills", type=int, default=20, help="of each flow")
    parse.add_argument("--events", type=int, default=6000)
    parse.add_argument("--outage", type=float, default=60, help="seconds that Redis and Kafka are away; 0: never")
    parse.add_argument("--report", type=Path, default=Path("chaos.json"))
    options = parse.parse_args(arguments)
    began, report = time.monotonic(), dict[str, Any](vars(options), report=None)
    clean = True
    for broker in ("embedded", "apache") if options.broker == "both" else (options.broker,):
        home = Path(os.environ["KAFKA_HOME"]) if broker == "apache" else None
        with tempfile.TemporaryDirectory(prefix="premiere-chaos-") as folder:

            def say(what: str, broker: str = broker) -> None:
                print(f"{time.monotonic() - began:6.0f} s  {broker}  {what}", flush=True)

            for name, found in stages(home, options, Path(folder), say):
                clean = clean and all(counts.clean for counts in found.counts.values())
                report.setdefault(broker, {})[name] = found.as_json()
                options.report.write_text(json.dumps(report, indent=1, default=str) + "\n")
                _show(found, say)
    print(f"Nothing lost, doubled or different: {clean}. Written: {options.report}.")
    return 0 if clean else 1


def _show(found: Report, say: Say) -> None:
    for kind, counts in found.counts.items():
        say(f"{kind:<20} {counts.wanted:>8,} wanted {counts.lost:>6,} lost {counts.doubled:>6,} doubled "
            f"{counts.differing:>6,} different")  # fmt: skip
    say(f"{found.repeated:,} events came to the learner twice and were passed over")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
