"""Runs the whole system on this machine at a fixed event rate for minutes: lag, latency, memory, CPU and accuracy.

The events are clicks of a news portal or your own. After a history, they arrive at the given rate. Every 30 s the
program prints the lag of the learner and of the lists, the learner's replay ratio, and each flow's memory and CPU. The
learner evaluates the live part itself, prequentially; above a certain rate it evaluates a random sample of the events.
A further baseline is computed over the same events after the run: the popularity of the last hour, which is hard to
beat for news.

    python -m benchmarks.sustained --rate 300 --minutes 10
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.latency_probe import LatencyProbe, last_events, paced_events, percentiles, warm_session
from benchmarks.runner import Row, make_row, save_results
from infra.data.datasets import Dataset
from infra.data.locate import locate
from infra.errors import PremiereError
from infra.experiments.machine import resident_mib
from infra.experiments.other_streams import globo
from infra.local.session import Session
from infra.monitor.lag import FLOW_TOPICS, PartitionLag
from infra.monitor.metric_totals import MetricTotals, learner_totals, totals_since
from infra.monitor.scrape import scrape_flow
from infra.monitor.status import processed_events
from infra.settings import Settings, load
from model.metrics.baselines import Baselines
from streaming.topics import ACTIVITY

STATUS_INTERVAL_S: Final = 30.0  # between two printed samples
LAG_INTERVAL_S: Final = 2.0  # between two samples of the learner's lag alone
MEMORY_BASELINE_S: Final = 120.0  # memory at the end is compared with the first sample after this time
SCRAPE_ATTEMPTS: Final = 30  # one per second
PROBE_EVERY: Final = 20  # every 20th event is probed in Redis, because probing uses CPU
RANK_EVERY: Final = 5  # every 5th event is ranked by the hourly popularity
VARIANTS: Final = ("full", "popularity_recent", "cooccurrence")
BENCHMARK: Final = "benchmark"  # this process
SERVICES: Final = "broker and Redis"
MACHINE: Final = "machine"  # all processes; the excess over the other entries is unrelated work
CLOCK_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class SystemSample(NamedTuple):
    """The state of the system at one moment."""

    elapsed_s: float  # since the first live event
    sent: int  # events
    learned: int  # events
    publish_lag_records: int  # records that `publish` has not committed
    publish_lag_s: float  # age difference of the first and the last of them
    replay_ratio: float  # experience replay relative to its normal amount
    memory_mib: Mapping[str, float]  # by flow
    cpu_seconds: Mapping[str, float]  # so far; by flow, and of the services, this process and the machine

    @property
    def learner_lag(self) -> int:
        """Events sent but not yet learned."""
        return self.sent - self.learned


@dataclass
class RunMeasurements:
    """The measurements of a run."""

    samples: list[SystemSample] = field(default_factory=list)
    learner_lag: list[tuple[float, int]] = field(default_factory=list)  # seconds, events; more frequent than samples
    totals: MetricTotals = field(default_factory=dict)  # metric sums over the live part


def cpu_seconds(process: int | str) -> float:
    """CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS_PER_S


def services_cpu_seconds(flow_pids: Collection[int]) -> float:
    """CPU seconds of the child processes that are not flows. A child may end meanwhile."""
    children = " ".join(file.read_text() for file in Path("/proc/self/task").glob("*/children")).split()
    return sum(cpu_seconds(pid) for pid in map(int, children) if pid not in flow_pids and Path(f"/proc/{pid}").exists())


def machine_cpu_seconds() -> float:
    """CPU seconds of all processes since the start of the machine, without guest and stolen time."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / CLOCK_TICKS_PER_S


def topic_lag(lags: Sequence[PartitionLag], topic: str) -> tuple[int, float]:
    """The lag on a topic: records over all partitions, and the maximum over partitions in seconds."""
    partitions = [lag for lag in lags if lag.topic == topic]
    return sum(lag.records for lag in partitions), max((lag.seconds or 0.0 for lag in partitions), default=0.0)


def take_sample(session: Session, probe: LatencyProbe, history: int, elapsed_s: float) -> SystemSample:
    """Sample the system; reading the lags may take a second."""
    lags = session.lags.read({"publish": FLOW_TOPICS["publish"]})
    learn = scrape_flow(session.settings, "learn")
    pids = session.flows.pids()
    learned = processed_events(session.settings) - history
    flows_cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
    others_cpu = {
        SERVICES: services_cpu_seconds(pids.values()),
        BENCHMARK: cpu_seconds("self"),
        MACHINE: machine_cpu_seconds(),
    }
    return SystemSample(
        elapsed_s,
        probe.events_sent,
        learned,
        *topic_lag(lags, ACTIVITY),
        learn.value("premiere_learner_replay_ratio") if learn else 0.0,
        {name: resident_mib(pid) for name, pid in pids.items()},
        flows_cpu | others_cpu,
    )


def format_sample(now: SystemSample, before: SystemSample) -> str:
    """A sample as text, with the CPU use since the sample before it."""
    memory = "  ".join(f"{name} {mib:.0f}" for name, mib in now.memory_mib.items())
    cores = "  ".join(f"{name} {used:.2f}" for name, used in cores_used(before, now).items())
    return (
        f"{now.elapsed_s:5.0f} s  sent {now.sent:,}  learned {now.learned:,}  learner lag {now.learner_lag:,}  "
        f"publish lag {now.publish_lag_records:,} records, {now.publish_lag_s:.1f} s  replay {now.replay_ratio:.2f}\n"
        f"         MiB: {memory}   cores: {cores}"
    )


def cores_used(before: SystemSample, now: SystemSample) -> dict[str, float]:
    """Cores in use between two samples, by flow and so on."""
    span = max(now.elapsed_s - before.elapsed_s, 1e-9)
    earlier = before.cpu_seconds
    return {name: (seconds - earlier[name]) / span for name, seconds in now.cpu_seconds.items() if name in earlier}


def sample_while_sending(
    session: Session, probe: LatencyProbe, history: int, sender: threading.Thread
) -> RunMeasurements:
    """Take samples until everything is sent, and one more then."""
    run, began, printed_at = RunMeasurements(), time.monotonic(), 0.0
    run.samples.append(take_sample(session, probe, history, 0.0))
    while sender.is_alive():
        sender.join(LAG_INTERVAL_S)
        session.flows.check()
        elapsed_s, learned = time.monotonic() - began, processed_events(session.settings) - history
        if learned > -history:  # a busy flow may not answer the scrape
            run.learner_lag.append((elapsed_s, probe.events_sent - learned))
        if elapsed_s >= printed_at + STATUS_INTERVAL_S or not sender.is_alive():
            run.samples.append(take_sample(session, probe, history, elapsed_s))
            print(format_sample(run.samples[-1], run.samples[-2]), flush=True)
            printed_at = elapsed_s
    return run


def measure(settings: Settings, part: Dataset, history: int, rate: float) -> tuple[RunMeasurements, LatencyProbe]:
    """Learn the history, send the rest at `rate`, and wait for the last. Raises PremiereError if a flow fails."""
    stop = threading.Event()
    with (
        warm_session(settings, part, history) as session,
        LatencyProbe(session, PROBE_EVERY, measure_kafka=False) as probe,
    ):
        before = read_totals(session)

        def send() -> None:
            for event in paced_events(part, history, rate):
                if stop.is_set():
                    break
                probe.send_event(event)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            run = sample_while_sending(session, probe, history, sender)
        finally:
            stop.set()
            sender.join()
        probe.finish()
        run.totals = totals_since(read_totals(session), before)
        return run, probe


def read_totals(session: Session) -> MetricTotals:
    """The learner's metric sums. Raises PremiereError if the learner does not answer."""
    for _ in range(SCRAPE_ATTEMPTS):
        if scrape := scrape_flow(session.settings, "learn"):
            return learner_totals(scrape)
        time.sleep(1)
    raise PremiereError("The flow learn does not answer: see `logs/learn.log` in the data folder.")


def hourly_popularity_mrr(data: Dataset, first: int, every: int = RANK_EVERY) -> float:
    """MRR of the last hour's popularity from event `first` on.

    All events are counted; one in `every` is ranked, unless its user has seen the title.
    """
    baselines, reciprocal_ranks = Baselines(), []
    for launch in data.launches:
        baselines.launch(launch.title)
    for k in range(len(data)):
        event = data.event(k)
        if k >= first and k % every == 0 and not baselines.has_seen(event.user, event.title):
            reciprocal_ranks.append(1 / baselines.rank(event.user, event.title, event.ts)["popularity_1h"])
        baselines.count(event.user, event.title, event.ts)
    return float(np.mean(reciprocal_ranks)) if reciprocal_ranks else float("nan")


def growth_per_s(values: Sequence[tuple[float, float]]) -> float:
    """Slope of (seconds, value) pairs over the second half of the run, by least squares."""
    half = np.array(values[len(values) // 2 :])
    return float(np.polyfit(half[:, 0], half[:, 1], 1)[0]) if len(half) > 1 else float("nan")


def sustained_rows(case: str, run: RunMeasurements, event_latencies: list[float], hourly_mrr: float) -> list[Row]:
    """Lag, latency, memory relative to the early sample, CPU, and MRR relative to recent popularity."""
    learner_lag, end = [float(events) for _, events in run.learner_lag], run.samples[-1]
    publish_lag = [sample.publish_lag_s for sample in run.samples[1:]]
    rows = [
        make_row(case, "learner lag", learner_lag, "events"),
        make_row(case, "learner lag at the end", [end.learner_lag], "events"),
        make_row(case, "maximum learner lag", [max(learner_lag)], "events"),
        make_row(case, "learner lag growth", [growth_per_s(run.learner_lag)], "events/s"),
        make_row(case, "publish lag", publish_lag, "s"),
        make_row(case, "publish lag at the end", [publish_lag[-1]], "s"),
        make_row(case, "replay ratio", [sample.replay_ratio for sample in run.samples[1:]], "of 1"),
    ]
    rows += [make_row(case, f"event to Redis p{p}", [1000 * s], "ms") for p, s in percentiles(event_latencies).items()]
    early = next((sample for sample in run.samples if sample.elapsed_s >= MEMORY_BASELINE_S), run.samples[1])
    for name, mib in end.memory_mib.items():
        early_mib = early.memory_mib.get(name, float("nan"))
        rows.append(make_row(case, f"{name}, memory at {early.elapsed_s:.0f} s", [early_mib], "MiB"))
        rows.append(make_row(case, f"{name}, memory at the end", [mib], "MiB", mib / early_mib))
    cores = [cores_used(before, now) for before, now in pairwise(run.samples)]
    for name in end.cpu_seconds:
        rows.append(make_row(case, f"{name}, CPU", [used[name] for used in cores if name in used], "cores"))
    mrr = {name: run.totals[name].mean("mrr", "all") or float("nan") for name in VARIANTS}
    reference = mrr["popularity_recent"]
    mrr["popularity of the last hour"] = hourly_mrr
    return rows + [make_row(case, f"MRR, {name}", [value], "MRR", value / reference) for name, value in mrr.items()]


def locate_stream(
    clicks: Path | None, events: Path | None, titles: Path | None, settings: Settings, limit: int
) -> Dataset:
    """The first `limit` news clicks of a day, else the given events, else the dataset that other commands use."""
    if clicks:
        return globo(clicks, limit)
    return locate(events, titles, (), data_dir=Path(".premiere"), folder=settings.data)


def main() -> None:
    """Measure and save the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=300, help="events/s")
    parser.add_argument("--minutes", type=float, default=10, help="duration of the live part")
    parser.add_argument("--history", type=int, default=5000, help="events to learn before the live part")
    parser.add_argument("--clicks", type=Path, help="news clicks: clicks.parquet of Globo.com")
    parser.add_argument("--events", type=Path, help="events file")
    parser.add_argument("--titles", type=Path, help="titles file for --events")
    parser.add_argument("--quick", action="store_true", help="20 s after 1,000 events")
    options = parser.parse_args()
    if options.quick:
        options.minutes, options.history = 1 / 3, 1000
    events = options.history + round(options.rate * options.minutes * 60)
    with tempfile.TemporaryDirectory() as folder:
        settings = load(data_dir=Path(folder))
        stream = locate_stream(options.clicks, options.events, options.titles, settings, events)
        part = last_events(stream, events)
        print(f"{part.name}: {len(part):,} events, {len(part.launches):,} titles", flush=True)
        run, probe = measure(settings, part, options.history, options.rate)
    print(
        f"{len(probe.event_latencies):,} latencies measured, {len(probe.pending_events)} events without effect in time"
    )
    hourly_mrr = hourly_popularity_mrr(part, options.history)
    broker = settings.broker or ("apache" if settings.kafka_home else "embedded")
    case = f"{part.name}, {options.rate:g}/s, {options.minutes:.2g} min, {broker}"
    save_results("sustained", sustained_rows(case, run, probe.event_latencies, hourly_mrr))


if __name__ == "__main__":
    main()
