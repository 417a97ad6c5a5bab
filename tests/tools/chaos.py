"""Chaos test: kills flows and stops services at random, and counts lost, duplicated and different records.

`make chaos` (SEED=, BROKER=embedded, apache or both) runs the system on simulated users, with erasures, withdrawals and
relaunches on the way, first without a fault. Then it repeats the run and sends `kill -9` to each flow at random
moments. The result must have the same offline rows, the same online features in Feast, lists of the same events in
Redis with valid content, and the same number of learned events. The learner's last checkpoint must be byte-identical to
that of an undisturbed learner on the same log. Further runs stop each flow for a while (SIGSTOP) and start a second
process of each, and stop Redis, and Kafka if the broker keeps its data, for a minute. The counts go to chaos.json.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from infra.data.datasets import Dataset
from infra.data.producer import ProduceRate
from infra.data.simulate import simulate
from infra.local.embedded import free_port, start_kafka, start_redis
from infra.local.session import Session
from infra.local.supervisor import FLOWS
from tests.support.chaos import (
    STALL_TIMEOUT_S,
    ErrorCounts,
    Fault,
    Log,
    RunResult,
    compare_runs,
    run_dataset,
    session_settings,
    wait_until_settled,
)
from tests.support.chaos_changes import Change, ChangingProducer, scripted_changes

EVENT_RATE: Final = 30.0  # events/s while flows are killed: a kill every few seconds, with events in flight
TITLE_COUNT: Final = 300
PHASES: Final = ("kills", "stalls", "redis", "kafka")  # the runs with a fault
CHANGES: Final = 5  # erasures, withdrawals and relaunches each


class FaultReport(NamedTuple):
    """The errors of one run with a fault."""

    counts: dict[str, ErrorCounts]  # kind of record -> its errors
    duplicate_events: int  # in the learner log, skipped by the learner; not an error

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        counts = {kind: asdict(counts) for kind, counts in self.counts.items()}
        return {**counts, "duplicate_log_events": self.duplicate_events}


class FlowKills:
    """A fault: `kill -9` for each flow several times, in random order at random moments of equal parts of the data."""

    def __init__(self, kills_per_flow: int, seed: int, rate: float = EVENT_RATE) -> None:
        self.random, self.rate = random.Random(seed), rate
        self.order = [flow for flow in FLOWS for _ in range(kills_per_flow)]
        self.random.shuffle(self.order)

    def __call__(self, session: Session, producer: ChangingProducer, until: int, log: Log) -> None:
        """Produce up to event number `until`, with all kills on the way."""
        start, size = producer.events, until - producer.events
        for number, flow in enumerate(self.order):
            first, last = (start + size * k // len(self.order) for k in (number, number + 1))
            producer.produce(self.random.randrange(first, last), ProduceRate(rate=self.rate))
            _kill(session, flow)
            producer.produce(last, ProduceRate(rate=self.rate))
            log(f"kill {number + 1} of {len(self.order)}: {flow}; {producer.events:,} events sent")


def _kill(session: Session, flow: str) -> None:
    """Send SIGKILL to a flow; wait first until it runs."""
    os.kill(_running_pid(session, flow), signal.SIGKILL)
    time.sleep(0.05)
    session.flows.check()


def _running_pid(session: Session, flow: str) -> int:
    """The process of a flow; waits until it runs."""
    deadline = time.monotonic() + STALL_TIMEOUT_S
    while flow not in session.flows.pids():
        session.flows.check()
        time.sleep(0.01)
        assert time.monotonic() < deadline, f"{flow} was not restarted"
    return session.flows.pids()[flow]


class Outage:
    """A fault: stops a service for `seconds` after half of the events, and starts it again with its data."""

    def __init__(self, service: "RestartableService", seconds: float, rate: float = 100.0) -> None:
        self.service, self.seconds, self.rate = service, seconds, rate

    def __call__(self, session: Session, producer: ChangingProducer, until: int, log: Log) -> None:
        """Produce up to event number `until`, with the outage on the way; no events are sent while Kafka is down."""
        half = (producer.events + until) // 2
        producer.produce(half, ProduceRate(rate=self.rate))
        wait_until_settled(session, half, log, producer.erased_events())
        before = session.flows.pids()
        self.service.stop()
        log(f"{self.service.name} is down for {self.seconds:g} s")
        end = time.monotonic() + self.seconds
        if self.service.home is None:
            producer.produce(min(until, half + int(self.rate * self.seconds / 2)), ProduceRate(rate=self.rate))
        while time.monotonic() < end:
            session.flows.check()
            time.sleep(0.1)
        self.service.start()
        log(f"{self.service.name} is up again")
        producer.produce(until, ProduceRate(rate=self.rate))
        assert session.flows.pids() == before, "a flow crashed during the outage"


class FlowStalls:
    """A fault: stops each flow for `seconds` in the middle of its part of the data (SIGSTOP), as a long pause would."""

    def __init__(self, seconds: float, rate: float = EVENT_RATE) -> None:
        self.seconds, self.rate = seconds, rate

    def __call__(self, session: Session, producer: ChangingProducer, until: int, log: Log) -> None:
        """Produce up to event number `until`, with all stalls on the way."""
        start, size = producer.events, until - producer.events
        for number, flow in enumerate(FLOWS, 1):
            last = start + size * number // len(FLOWS)
            producer.produce((producer.events + last) // 2, ProduceRate(rate=self.rate))
            pid = _running_pid(session, flow)
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            producer.produce(last, ProduceRate(rate=self.rate))
            time.sleep(max(0.0, began + self.seconds - time.monotonic()))
            os.kill(pid, signal.SIGCONT)
            log(f"{flow} was stopped for {time.monotonic() - began:.0f} s; {producer.events:,} events sent")


class SecondProcesses:
    """A fault: a second process of each flow starts on the same data folder. It must end with an error."""

    def __call__(self, session: Session, producer: ChangingProducer, until: int, log: Log) -> None:
        """Produce up to event number `until`, with the second processes on the way."""
        before = {flow: _running_pid(session, flow) for flow in FLOWS}
        environment = {**os.environ, **session.settings.environment(), "PREMIERE_METRICS_PORT": "0"}
        for flow in FLOWS:
            command = [sys.executable, "-P", "-m", "infra.cli.main", "run", flow]
            second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=STALL_TIMEOUT_S)
            assert second.returncode != 0, f"a second process of {flow} ran"
            assert "already running" in second.stderr + second.stdout, second.stderr[-2_000:]
            log(f"a second process of {flow} ended with {second.returncode}")
        producer.produce(until, ProduceRate(rate=EVENT_RATE))
        assert session.flows.pids() == before, "a flow ended because of a second process"


class FaultSequence:
    """A fault: several faults one after the other, each in an equal part of the data."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults

    def __call__(self, session: Session, producer: ChangingProducer, until: int, log: Log) -> None:
        """Produce up to event number `until`, with all faults on the way."""
        start, size = producer.events, until - producer.events
        for number, fault in enumerate(self.faults, 1):
            fault(session, producer, start + size * number // len(self.faults), log)


class RestartableService:
    """A Kafka or Redis that can be stopped and started again at the same address with its data."""

    def __init__(self, name: str, folder: Path, home: Path | None) -> None:
        self.name, self.folder, self.home, self.port = name, folder, home, free_port()
        self.address = self.start()

    def start(self) -> str:
        """Start the service and return its address."""
        context: AbstractContextManager[str] = (
            start_kafka(self.folder, self.home)
            if self.name == "Kafka"
            else start_redis(self.folder, self.port, keep=True)
        )
        self._context = context
        return context.__enter__()

    def stop(self) -> None:
        """Stop the service."""
        self._context.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()


def run_with_fault(
    name: str,
    folder: Path,
    data: Dataset,
    want: RunResult,
    fault: Fault,
    log: Log,
    changes: Sequence[Change] = (),
    **given: Any,
) -> FaultReport:
    """Run with a fault and compare with the result `want`."""
    log(f"{name}:")
    found = run_dataset(session_settings(folder, **given), data, fault, log, changes)
    return FaultReport(compare_runs(want, found), found.duplicate_events)


def fault_runs(
    home: Path | None, options: argparse.Namespace, folder: Path, log: Log
) -> Iterator[tuple[str, FaultReport]]:
    """All runs with a fault on one broker, compared with one run without a fault."""
    data = simulate(users=options.events // 20, titles=TITLE_COUNT, events=options.events, days=60, seed=options.seed)
    given: dict[str, Any] = {"kafka_home": home}
    log("undisturbed:")
    changes = scripted_changes(data, CHANGES, options.seed)
    want = run_dataset(session_settings(folder / "undisturbed", **given), data, None, log, changes)
    given["changes"] = changes
    names = options.only or PHASES
    if "kills" in names:
        kills = FlowKills(options.kills, options.seed)
        yield "flow_kills", run_with_fault("flow kills", folder / "kills", data, want, kills, log, **given)
    if "stalls" in names:
        stalls = FaultSequence(FlowStalls(options.stall), SecondProcesses())
        yield "stalls", run_with_fault("stalled and second processes", folder / "0", data, want, stalls, log, **given)
    if "redis" in names and options.outage:
        with RestartableService("Redis", folder / "redis", None) as redis:
            outage, address = Outage(redis, options.outage), dict[str, Any](redis_url=redis.address)
            report = run_with_fault("Redis outage", folder / "1", data, want, outage, log, **given, **address)
            yield "redis_outage", report
    if "kafka" in names and options.outage and home is not None:  # the embedded broker keeps no data
        with RestartableService("Kafka", folder / "kafka", home) as kafka:
            outage, address = Outage(kafka, options.outage), dict[str, Any](bootstrap_servers=kafka.address)
            report = run_with_fault("Kafka outage", folder / "2", data, want, outage, log, **given, **address)
            yield "kafka_outage", report


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 if no record was lost, duplicated or different."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--broker", choices=("embedded", "apache", "both"), default="embedded")
    parse.add_argument("--kills", type=int, default=20, help="number of kills per flow")
    parse.add_argument("--events", type=int, default=6000)
    parse.add_argument("--stall", type=float, default=20, help="seconds for which each flow is stopped once")
    parse.add_argument("--outage", type=float, default=60, help="outage of Redis and of Kafka in seconds; 0: none")
    parse.add_argument("--only", nargs="+", choices=PHASES, help="run only these faults (default: all)")
    parse.add_argument("--report", type=Path, default=Path("chaos.json"))
    options = parse.parse_args(arguments)
    if options.broker != "embedded" and "KAFKA_HOME" not in os.environ:
        parse.error("set KAFKA_HOME to the folder of an Apache Kafka")
    started, report = time.monotonic(), dict[str, Any](vars(options), report=None)
    ok = True
    for broker in ("embedded", "apache") if options.broker == "both" else (options.broker,):
        home = Path(os.environ["KAFKA_HOME"]) if broker == "apache" else None
        with tempfile.TemporaryDirectory(prefix="premiere-chaos-") as folder:

            def log(message: str, broker: str = broker) -> None:
                print(f"{time.monotonic() - started:6.0f} s  {broker}  {message}", flush=True)

            for name, found in fault_runs(home, options, Path(folder), log):
                ok = ok and all(counts.ok for counts in found.counts.values())
                report.setdefault(broker, {})[name] = found.as_json()
                options.report.write_text(json.dumps(report, indent=1, default=str) + "\n")
                _log_report(found, log)
    print(f"No record lost, duplicated or different: {ok}. Report: {options.report}.")
    return 0 if ok else 1


def _log_report(found: FaultReport, log: Log) -> None:
    for kind, counts in found.counts.items():
        log(f"{kind:<20} {counts.expected:>8,} expected {counts.lost:>6,} lost {counts.duplicated:>6,} duplicated "
            f"{counts.different:>6,} different")  # fmt: skip
    log(f"{found.duplicate_events:,} duplicate events in the learner log were skipped")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
