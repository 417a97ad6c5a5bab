"""The whole loop at a rate for minutes, all on this machine: does it keep up, does its memory stay, is it good?

Clicks of a news portal (or your own events) come at a stated rate after a history. Every 30 s it is told how far the
learner and the lists are behind, what the learner gives up, and what each flow takes of memory and processors. The
live part is scored by the learner itself, each event before it is learned (above a rate a fair sample of them). Beside
it, counted after the run over the same events: the popularity of the last hour, the one that is hard to beat for news.

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

from benchmarks.probe import Probe, last, paced, quantiles, warmed
from benchmarks.runner import Row, publish, row
from infra.data.datasets import DataSet
from infra.data.locate import find
from infra.errors import PremiereError
from infra.experiments.machine import resident_mib
from infra.experiments.other_streams import HOUR, globo
from infra.local.session import Session
from infra.monitor.lag import READS, Lag
from infra.monitor.metric_totals import Tally, of_learner, since
from infra.monitor.scrape import read
from infra.monitor.status import accounted
from infra.settings import Settings, load
from model.metrics.baselines import Baselines
from streaming.topics import ACTIVITY

TELL: Final = 30.0  # seconds between two lines
GLANCE: Final = 2.0  # seconds between two looks at the learner's lag alone
EARLY: Final = 120.0  # seconds after which memory is compared with the end's
WATCHED: Final = 20  # one event in so many is looked for in Redis: looking takes from what is measured
SCORED: Final = 5  # one event in so many is ranked by the popularity of the hour
RANKINGS: Final = ("full", "popularity_recent", "cooccurrence")
BENCHMARK: Final = "benchmark"  # this process, among the flows
SERVICES: Final = "broker and Redis"
MACHINE: Final = "machine"  # everything: what is beyond the sum of the others is the work of strangers
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Look(NamedTuple):
    """The loop at one moment. `cpu`: seconds so far, of flows, services, the benchmark itself and all."""

    at: float  # seconds after the first live event
    sent: int
    learned: int
    publish: int  # records that `publish` has not committed
    publish_seconds: float  # between the first and the last of them
    replay: float  # share of the usual
    memory: Mapping[str, float]  # MiB by flow
    cpu: Mapping[str, float]

    @property
    def behind(self) -> int:
        return self.sent - self.learned


@dataclass
class Course:
    """What was seen of a run."""

    looks: list[Look] = field(default_factory=list)
    behind: list[tuple[float, int]] = field(default_factory=list)  # seconds, events; more often than looks
    tally: Tally = field(default_factory=dict)  # of the live part


def cpu(process: int | str) -> float:
    """Seconds of processor that a process took so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def services(flows: Collection[int]) -> float:
    """Seconds of processor of our children that are no flow; one may end while we look."""
    found = " ".join(file.read_text() for file in Path("/proc/self/task").glob("*/children")).split()
    return sum(cpu(pid) for pid in map(int, found) if pid not in flows and Path(f"/proc/{pid}").exists())


def machine() -> float:
    """Seconds of processor that all processes took since the start, guests' and stolen time apart."""
    user, nice, system, _idle, _waiting, hard, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + hard + soft) / TICKS


def waiting(lags: Sequence[Lag], topic: str) -> tuple[int, float]:
    """Records of a topic that wait, and the longest wait of a partition in seconds."""
    rows = [lag for lag in lags if lag.topic == topic]
    return sum(lag.lag for lag in rows), max((lag.seconds or 0.0 for lag in rows), default=0.0)


def look(loop: Session, probe: Probe, history: int, at: float) -> Look:
    """All of it; reading lags may take a second."""
    lags = loop.lags.read({"publish": READS["publish"]})
    learn = read(loop.settings, "learn")
    pids = loop.flows.pids()
    learned = accounted(loop.settings) - history
    return Look(
        at, probe.events, learned, *waiting(lags, ACTIVITY), learn.value("premiere_learner_replay") if learn else 0.0,
        {name: resident_mib(pid) for name, pid in pids.items()},
        {name: cpu(pid) for name, pid in pids.items()}
        | {SERVICES: services(pids.values()), BENCHMARK: cpu("self"), MACHINE: machine()},
    )  # fmt: skip


def line(now: Look, before: Look) -> str:
    """A look as it is shown, processors since the one before."""
    memory = "  ".join(f"{name} {mib:.0f}" for name, mib in now.memory.items())
    cores = "  ".join(f"{name} {share:.2f}" for name, share in cores_of(before, now).items())
    return (
        f"{now.at:5.0f} s  sent {now.sent:,}  learned {now.learned:,}  behind {now.behind:,}  "
        f"lists behind {now.publish:,} records, {now.publish_seconds:.1f} s  replay {now.replay:.2f}\n"
        f"         MiB: {memory}   cores: {cores}"
    )


def cores_of(before: Look, now: Look) -> dict[str, float]:
    """Processors in use between two looks, by who uses them."""
    span = max(now.at - before.at, 1e-9)
    return {name: (seconds - before.cpu[name]) / span for name, seconds in now.cpu.items() if name in before.cpu}


def watch(loop: Session, probe: Probe, history: int, sending: threading.Thread) -> Course:
    """Look until everything is sent, and once more when it is."""
    course, began, told = Course(), time.monotonic(), 0.0
    course.looks.append(look(loop, probe, history, 0.0))
    while sending.is_alive():
        sending.join(GLANCE)
        loop.flows.check()
        at, learned = time.monotonic() - began, accounted(loop.settings) - history
        if learned > -history:  # a flow that is asked at a bad moment does not answer
            course.behind.append((at, probe.events - learned))
        if at >= told + TELL or not sending.is_alive():
            course.looks.append(look(loop, probe, history, at))
            print(line(course.looks[-1], course.looks[-2]), flush=True)
            told = at
    return course


def measure(settings: Settings, part: DataSet, history: int, rate: float) -> tuple[Course, Probe]:
    """Warm the loop, send the rest at `rate`, wait for the last. Raises PremiereError where a flow cannot live."""
    stop = threading.Event()
    with warmed(settings, part, history) as loop, Probe(loop, WATCHED, plain=False) as probe:
        before = tally(loop)

        def send() -> None:
            for event in paced(part, history, rate):
                if stop.is_set():
                    break
                probe.act(event)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            course = watch(loop, probe, history, sending)
        finally:
            stop.set()
            sending.join()
        probe.finish()
        course.tally = since(tally(loop), before)
        return course, probe


def tally(loop: Session) -> Tally:
    """The learner's sums now. Raises PremiereError where it does not answer."""
    for _ in range(30):
        if page := read(loop.settings, "learn"):
            return of_learner(page)
        time.sleep(1)
    raise PremiereError("The flow learn does not answer: `logs/learn.log` in the data folder tells why.")


def popularity_of_the_hour(data: DataSet, first: int, every: int = SCORED) -> float:
    """MRR from event `first` on, each counted, one in `every` ranked; what a viewer has seen is no target."""
    baselines, found = Baselines(days=HOUR), []
    for launch in data.launches:
        baselines.launch(launch.title)
    for k in range(len(data)):
        event = data.event(k)
        if k >= first and k % every == 0 and not baselines.has_seen(event.user, event.title):
            found.append(1 / baselines.rank(event.user, event.title, event.ts)["popularity_recent"])
        baselines.count(event.user, event.title, event.ts)
    return float(np.mean(found)) if found else float("nan")


def growth(behind: Sequence[tuple[float, float]]) -> float:
    """By how much a second the second of two values grows, over the run's second half: least squares."""
    half = np.array(behind[len(behind) // 2 :])
    return float(np.polyfit(half[:, 0], half[:, 1], 1)[0]) if len(half) > 1 else float("nan")


def rows(case: str, course: Course, event: list[float], hour: float) -> list[Row]:
    """Lag, freshness, memory beside the early one, MRR beside the popularity window."""
    behind, end = [events for _, events in course.behind], course.looks[-1]
    lists = [one.publish_seconds for one in course.looks[1:]]
    found = [
        row(case, "behind", list(map(float, behind)), "events"),
        row(case, "behind at the end", [end.behind], "events"),
        row(case, "behind at worst", [max(behind)], "events"),
        row(case, "behind grows by", [growth(course.behind)], "events/s"),
        row(case, "lists behind", lists, "s"),
        row(case, "lists behind at the end", [lists[-1]], "s"),
        row(case, "replay share", [one.replay for one in course.looks[1:]], "of 1"),
    ]
    found += [row(case, f"event to redis p{q}", [1000 * v], "ms") for q, v in quantiles(event).items()]
    early = next((one for one in course.looks if one.at >= EARLY), course.looks[1])
    for name, mib in end.memory.items():
        found.append(row(case, f"{name} at {early.at:.0f} s", [early.memory.get(name, float("nan"))], "MiB"))
        found.append(row(case, f"{name} at the end", [mib], "MiB", mib / early.memory.get(name, float("nan"))))
    shares = [cores_of(a, b) for a, b in pairwise(course.looks)]
    for name in end.cpu:
        found.append(row(case, f"{name}, processors", [one[name] for one in shares if name in one], "cores"))
    mrr = {name: course.tally[name].mean("mrr", "all") or float("nan") for name in RANKINGS}
    base_mrr = mrr["popularity_recent"]
    mrr["popularity of the hour"] = hour
    return found + [row(case, f"MRR, {name}", [value], "MRR", value / base_mrr) for name, value in mrr.items()]


def stream(clicks: Path | None, events: Path | None, titles: Path | None, settings: Settings, wanted: int) -> DataSet:
    """A day of the given news clicks, else the given events, else the data set that other commands use."""
    if clicks:
        return globo(clicks, wanted)
    return find(events, titles, (), data_dir=Path(".premiere"), folder=settings.data)


def main() -> None:
    """Run and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=300, help="events/s")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--history", type=int, default=5000, help="events learned first")
    parser.add_argument("--clicks", type=Path, help="news clicks: clicks.parquet of Globo.com")
    parser.add_argument("--events", type=Path, help="events of your own")
    parser.add_argument("--titles", type=Path, help="their titles")
    parser.add_argument("--quick", action="store_true", help="20 s after 1,000 events")
    given = parser.parse_args()
    if given.quick:
        given.minutes, given.history = 1 / 3, 1000
    wanted = given.history + round(given.rate * given.minutes * 60)
    with tempfile.TemporaryDirectory() as folder:
        settings = load(data_dir=Path(folder))
        part = last(stream(given.clicks, given.events, given.titles, settings, wanted), wanted)
        print(f"{part.name}: {len(part):,} events, {len(part.launches):,} titles", flush=True)
        course, probe = measure(settings, part, given.history, given.rate)
    print(f"{len(probe.event):,} events seen in Redis, {len(probe.waiting)} not", flush=True)
    hour = popularity_of_the_hour(part, given.history)
    broker = settings.broker or ("apache" if settings.kafka_home else "embedded")
    case = f"{part.name}, {given.rate:g}/s, {given.minutes:.2g} min, {broker}"
    publish("sustained", rows(case, course, probe.event, hour))


if __name__ == "__main__":
    main()
