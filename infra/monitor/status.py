"""`premiere status`: how far each flow is, what the learner does, and how fresh what it writes is.

Lags come from Kafka (committed offsets against the ends), versions from their topic, everything else from the flows'
own metrics pages. The demo looks at the same things in the same way, again and again.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition
from rich.console import Console, Group, RenderableType
from rich.table import Table

from infra.local.supervisor import FLOWS
from infra.monitor import metric_totals
from infra.monitor.lag import Lag, Lags
from infra.monitor.scrape import Histogram, Scrape, read_all
from infra.settings import Settings
from streaming.records import Version, decode_version
from streaming.topics import MODEL_VERSIONS

KINDS: Final = ("event", "launch")
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
LEARNER: Final = {  # what the status shows: the learner's gauge behind it
    "learned": "premiere_learned_events",
    "position": "premiere_learner_position",
    "duplicates": "premiere_learner_duplicates",
    "unlaunched": "premiere_learner_unlaunched",
    "replay": "premiere_learner_replay",
    "ranked": "premiere_learner_ranked",
    "events_per_second": "premiere_learner_events_per_second",
}
_PATIENCE: Final = 5.0  # seconds for the newest version


@dataclass(frozen=True)
class Status:
    """The loop at one moment."""

    at: float = 0.0  # unix seconds
    lags: Sequence[Lag] = ()
    pages: Mapping[str, Scrape | None] = field(default_factory=dict)  # flow -> its metrics; None: no answer

    def page(self, flow: str) -> Scrape:
        """A flow's metrics, empty where it does not answer."""
        return self.pages.get(flow) or Scrape()

    @property
    def learned(self) -> int:
        """Events that the learner took from its log."""
        return int(self.page("learn").value(LEARNER["learned"]))

    @property
    def duplicates(self) -> int:
        """Events dropped because their id was known, since `features` started."""
        return int(self.page("features").value("premiere_duplicates_total"))

    @property
    def dead_lettered(self) -> int:
        """Events that could not be used, since `features` started."""
        return int(self.page("features").value("premiere_dead_letters_total"))

    @property
    def accounted(self) -> int:
        """Events of which we know what became of them."""
        return self.learned + self.duplicates + self.dead_lettered

    @property
    def version(self) -> int | None:
        """The newest announced version, which is numbered by its offset; None before the first."""
        end = max((row.end for row in self.lags if row.topic == MODEL_VERSIONS), default=0)
        return end - 1 if end else None

    def waiting(self, group: str, topic: str) -> int:
        """Messages of a topic that a group has not committed."""
        return sum(row.lag for row in self.lags if (row.group, row.topic) == (group, topic))

    def lag(self) -> dict[str, int]:
        """Messages that wait, by "group < topic"."""
        return {f"{g} < {t}": self.waiting(g, t) for g, t in dict.fromkeys((row.group, row.topic) for row in self.lags)}

    def freshness(self, kind: str) -> Histogram:
        """Seconds from a Kafka record to its effect in Redis, for events or launches, since `publish` started."""
        return Histogram.of(self.page("publish"), "premiere_freshness_seconds", kind=kind)


def look(settings: Settings, lags: Lags) -> Status:
    """The loop as it is now. Raises TopicError where Kafka does not answer."""
    return Status(time.time(), lags.read(), read_all(settings))


def accounted(settings: Settings) -> int:
    """Events accounted for, without asking Kafka: cheap enough to ask all the time."""
    return Status(pages=read_all(settings, ("features", "learn"))).accounted


def milliseconds(histogram: Histogram) -> dict[str, float | None]:
    """Quantiles of a freshness in ms, None where nothing was observed."""
    seconds = {name: histogram.quantile(q) for name, q in QUANTILES.items()}
    return {name: None if value is None else round(1000 * value, 1) for name, value in seconds.items()}


def newest_version(config: Mapping[str, str], lags: Lags) -> tuple[int, Version] | None:
    """The newest version announced, with its number; None where there is none."""
    end = next((row.end for row in lags.read({"publish": (MODEL_VERSIONS,)})), 0)
    if end == 0:
        return None
    consumer = Consumer({**config, "group.id": "premiere-status", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(MODEL_VERSIONS, 0, end - 1)])
        message = consumer.poll(_PATIENCE)
        if message is None or message.error() or (value := message.value()) is None:
            return None
        return end - 1, decode_version(value)
    finally:
        consumer.close()


def status(settings: Settings) -> tuple[Status, tuple[int, Version] | None]:
    """The loop and its newest version. Raises SettingsError, TopicError."""
    with Lags(settings.kafka()) as lags:
        return look(settings, lags), newest_version(settings.kafka(), lags)


def as_json(status: Status, newest: tuple[int, Version] | None) -> dict[str, Any]:
    """All of it for scripts."""
    learn, features = status.page("learn"), status.page("features")
    version = newest and {"number": newest[0], **{name: getattr(newest[1], name) for name in Version.__struct_fields__}}
    return {
        "at": status.at,
        "flows": {flow: status.pages.get(flow) is not None for flow in FLOWS},
        "lag": [row._asdict() for row in status.lags],
        "events": {
            "taken": int(features.value("premiere_events_total")),
            "duplicates": status.duplicates,
            "dead_lettered": {k: int(v) for k, v in features.by("premiere_dead_letters_total", "reason").items()},
        },
        "learner": {name: learn.value(metric) for name, metric in LEARNER.items()},
        "loss": learn.by("premiere_learner_loss", "part"),
        "version": version,
        "freshness_ms": {kind: milliseconds(status.freshness(kind)) for kind in KINDS},
        **metric_totals.table(metric_totals.of_learner(learn)),
    }


def show(status: Status, newest: tuple[int, Version] | None, console: Console | None = None) -> None:
    """All of it for people."""
    (console or Console()).print(Group(_lags(status), _facts(as_json(status, newest))))


def _lags(status: Status) -> RenderableType:
    grid = Table("flow", "topic", box=None, pad_edge=False, header_style="dim")
    for name in ("partition", "committed", "end", "lag", "seconds"):
        grid.add_column(name, justify="right")
    for row in status.lags:
        committed = "-" if row.committed is None else f"{row.committed:,}"
        seconds = "?" if row.seconds is None else f"{row.seconds:,.1f}"
        grid.add_row(row.group, row.topic, str(row.partition), committed, f"{row.end:,}", f"{row.lag:,}", seconds)
    return grid


def _facts(found: dict[str, Any]) -> RenderableType:
    grid = Table(box=None, pad_edge=False, show_header=False)
    silent = [flow for flow, answers in found["flows"].items() if not answers]
    if silent:
        grid.add_row("no answer from", ", ".join(silent))
    learner, events, version = found["learner"], found["events"], found["version"]
    dead = ", ".join(f"{count} {reason}" for reason, count in events["dead_lettered"].items())
    grid.add_row(
        "events", f"{events['taken']:,} taken, {events['duplicates']:,} doubles, dead letters: {dead or 'none'}"
    )
    grid.add_row(
        "learner",
        f"{learner['learned']:,.0f} events, {learner['events_per_second']:,.0f}/s, at {learner['position']:,.0f} "
        f"of its log, replay {learner['replay']:.0%}, ranked {learner['ranked']:.0%}",
    )
    for kind, quantiles in found["freshness_ms"].items():
        if quantiles["p50"] is not None:
            grid.add_row(f"freshness, {kind}", ", ".join(f"{q} {ms:,.0f} ms" for q, ms in quantiles.items()))
    if version:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(version["created"] / 1000))
        grid.add_row("version", f"{version['number']}, step {version['step']:,}, {made}, {version['path']}")
    for ranking, means in found["mrr"].items():
        if means["all"] is not None:
            grid.add_row(f"MRR, {ranking}", f"{means['all']:.4f} since the learner began")
    return grid
