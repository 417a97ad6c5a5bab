"""`premiere status`: consumer lag, event counts, learner state and end-to-end latency.

The consumer lag comes from Kafka, the newest model version from its topic, the restarts of a stopped flow from files of
this machine, and everything else from the flows' Prometheus endpoints. The demo samples the same values repeatedly.
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
from infra.monitor.lag import LagReader, PartitionLag
from infra.monitor.scrape import Histogram, Scrape, scrape_flows
from infra.run.starts import restarts
from infra.settings import Settings
from streaming.kafka.client import consumer_config, topic_name
from streaming.phase import Phase
from streaming.records import Version, decode_version
from streaming.topics import MODEL_VERSIONS

RECORD_KINDS: Final = ("event", "launch")
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
LEARNER_METRICS: Final = {  # field of the status -> metric of the flow `learn`
    "learned_events": "premiere_learned_events_total",
    "log_position": "premiere_learner_position",
    "duplicates": "premiere_learner_duplicates_total",
    "unknown_title_events": "premiere_learner_unknown_title_events_total",
    "replay_ratio": "premiere_learner_replay_ratio",
    "eval_sample_ratio": "premiere_learner_eval_sample_ratio",
    "events_per_second": "premiere_learner_events_per_second",
}
NOT_RUNNING: Final = "not running"
_PHASES: Final = [*map(str, Phase)]  # the earliest phase of a flow's workers counts
_VERSION_TIMEOUT_S: Final = 5.0  # to read the newest version from its topic


@dataclass(frozen=True)
class Status:
    """The state of all flows at one moment."""

    time: float = 0.0  # Unix time in seconds
    lags: Sequence[PartitionLag] = ()
    scrapes: Mapping[str, Scrape | None] = field(default_factory=dict)  # flow -> its metrics; None if it did not answer
    counted_restarts: Mapping[str, int] = field(default_factory=dict)  # flow -> restarts, from files of this machine

    def scrape(self, flow: str) -> Scrape:
        """A flow's metrics, empty if the flow did not answer."""
        return self.scrapes.get(flow) or Scrape()

    def phase(self, flow: str) -> str:
        """What a flow does: a phase of `streaming.phase`, or "not running" if it does not answer."""
        if self.scrapes.get(flow) is None:
            return NOT_RUNNING
        states = self.scrape(flow).by_label("premiere_flow_phase", "premiere_flow_phase")
        return min((phase for phase, is_current in states.items() if is_current), key=_PHASES.index, default="unknown")

    def restarts(self, flow: str) -> int:
        """How often workers of a flow started after a crash; from its files on this machine if it does not answer."""
        if self.scrapes.get(flow) is None:
            return self.counted_restarts.get(flow, 0)
        return int(self.scrape(flow).value("premiere_flow_restarts"))

    @property
    def served_version(self) -> int | None:
        """The number of the version that `publish` serves; None before the first, and if it does not answer."""
        found = self.scrape("publish").select("premiere_version_served")
        return int(found[0].value) if found and found[0].value >= 0 else None

    @property
    def learned(self) -> int:
        """Events that the learner has learned."""
        return int(self.scrape("learn").value(LEARNER_METRICS["learned_events"]))

    @property
    def duplicates(self) -> int:
        """Events dropped as duplicates since `features` started."""
        return int(self.scrape("features").value("premiere_duplicates_total"))

    @property
    def dead_lettered(self) -> int:
        """Invalid events since `features` started."""
        return int(self.scrape("features").value("premiere_dead_letters_total"))

    @property
    def processed_events(self) -> int:
        """Events that were learned, dropped as duplicates or dead-lettered."""
        return self.learned + self.duplicates + self.dead_lettered

    @property
    def version(self) -> int | None:
        """The number of the newest announced model version; None before the first."""
        end = max((row.end_offset for row in self.lags if row.topic == MODEL_VERSIONS), default=0)
        return end - 1 if end else None

    def lag_records(self, group: str, topic: str) -> int:
        """Records of a topic that a group has not committed."""
        return sum(row.records for row in self.lags if (row.group, row.topic) == (group, topic))

    def lag_by_topic(self) -> dict[str, int]:
        """Consumer lag in records, keyed by "group < topic"."""
        pairs = dict.fromkeys((row.group, row.topic) for row in self.lags)
        return {f"{group} < {topic}": self.lag_records(group, topic) for group, topic in pairs}

    def end_to_end_latency(self, kind: str) -> Histogram:
        """End-to-end latency in seconds of events or launches since `publish` started."""
        return Histogram.from_scrape(self.scrape("publish"), "premiere_end_to_end_latency_seconds", kind=kind)


def read_status(settings: Settings, lags: LagReader) -> Status:
    """Read the status now. Raises TopicError if Kafka does not answer."""
    counted = {flow: restarts(settings.data_dir, flow) for flow in FLOWS}
    return Status(time.time(), lags.read(), scrape_flows(settings), counted)


def processed_events(settings: Settings) -> int:
    """Events that were learned, dropped or dead-lettered. It does not query Kafka, so it is cheap to poll."""
    return Status(scrapes=scrape_flows(settings, ("features", "learn"))).processed_events


def quantiles_ms(histogram: Histogram) -> dict[str, float | None]:
    """Latency quantiles in ms; None without observations."""
    seconds = {name: histogram.quantile(q) for name, q in QUANTILES.items()}
    return {name: None if value is None else round(1000 * value, 1) for name, value in seconds.items()}


def newest_version(config: Mapping[str, str], lags: LagReader) -> tuple[int, Version] | None:
    """The number and the record of the newest announced model version; None if there is none."""
    end = next((row.end_offset for row in lags.read({"publish": (MODEL_VERSIONS,)})), 0)
    if end == 0:
        return None
    consumer = Consumer(consumer_config(config, "premiere-status"))
    try:
        consumer.assign([TopicPartition(topic_name(config, MODEL_VERSIONS), 0, end - 1)])
        message = consumer.poll(_VERSION_TIMEOUT_S)
        if message is None or message.error() or (value := message.value()) is None:
            return None
        return end - 1, decode_version(value)
    finally:
        consumer.close()


def status_and_version(settings: Settings) -> tuple[Status, tuple[int, Version] | None]:
    """The status and the newest model version. Raises SettingsError, TopicError."""
    with LagReader(settings.kafka_config()) as lags:
        return read_status(settings, lags), newest_version(settings.kafka_config(), lags)


def as_json(status: Status, newest: tuple[int, Version] | None) -> dict[str, Any]:
    """The status as JSON values."""
    learn, features = status.scrape("learn"), status.scrape("features")
    version = newest and {"number": newest[0], **{name: getattr(newest[1], name) for name in Version.__struct_fields__}}
    return {
        "time": status.time,
        "flows": {flow: status.scrapes.get(flow) is not None for flow in FLOWS},
        "phases": {flow: status.phase(flow) for flow in FLOWS},
        "restarts": {flow: status.restarts(flow) for flow in FLOWS},
        "lag": [row._asdict() for row in status.lags],
        "events": {
            "accepted": int(features.value("premiere_events_total")),
            "duplicates": status.duplicates,
            "dead_letters": _dead_letters(features),
        },
        "titles": {"dead_letters": _dead_letters(status.scrape("titles"))},
        "learner": {name: learn.value(metric) for name, metric in LEARNER_METRICS.items()},
        "loss": learn.by_label("premiere_learner_loss", "part"),
        "version": version,
        "served_version": status.served_version,
        "end_to_end_latency_ms": {kind: quantiles_ms(status.end_to_end_latency(kind)) for kind in RECORD_KINDS},
        **metric_totals.mean_table(metric_totals.learner_totals(learn)),
    }


def _dead_letters(scrape: Scrape) -> dict[str, int]:
    """A flow's dead letters by kind."""
    return {kind: int(count) for kind, count in scrape.by_label("premiere_dead_letters_total", "reason").items()}


def _nonzero(letters: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in letters.items() if count) or "none"


def print_status(status: Status, newest: tuple[int, Version] | None, console: Console | None = None) -> None:
    """Print the status as tables."""
    (console or Console()).print(Group(_lag_table(status), _summary_table(as_json(status, newest))))


def _lag_table(status: Status) -> RenderableType:
    grid = Table("flow", "topic", box=None, pad_edge=False, header_style="dim")
    for name in ("partition", "committed offset", "end offset", "lag", "lag in s"):
        grid.add_column(name, justify="right")
    for row in status.lags:
        committed = "-" if row.committed_offset is None else f"{row.committed_offset:,}"
        seconds = "?" if row.seconds is None else f"{row.seconds:,.1f}"
        grid.add_row(
            row.group, row.topic, str(row.partition), committed, f"{row.end_offset:,}", f"{row.records:,}", seconds
        )
    return grid


def _summary_table(found: dict[str, Any]) -> RenderableType:
    grid = Table(box=None, pad_edge=False, show_header=False)
    for flow, phase in found["phases"].items():
        restarts = found["restarts"][flow]
        crashed = f", {restarts} restart{'s' if restarts > 1 else ''} after a crash" if restarts else ""
        grid.add_row(flow, (f"[red]{phase}[/red]" if phase == NOT_RUNNING else phase) + crashed)
    learner, events, version = found["learner"], found["events"], found["version"]
    grid.add_row(
        "events",
        f"{events['accepted']:,} accepted, {events['duplicates']:,} duplicates, dead letters of "
        f"features: {_nonzero(events['dead_letters'])}",
    )
    grid.add_row("titles", f"dead letters of titles: {_nonzero(found['titles']['dead_letters'])}")
    grid.add_row(
        "learner",
        f"{learner['learned_events']:,.0f} events, {learner['events_per_second']:,.0f}/s, "
        f"at log offset {learner['log_position']:,.0f}, "
        f"replay {learner['replay_ratio']:.0%}, evaluated {learner['eval_sample_ratio']:.0%}",
    )
    for kind, quantiles in found["end_to_end_latency_ms"].items():
        if quantiles["p50"] is not None:
            grid.add_row(f"end-to-end latency, {kind}", ", ".join(f"{q} {ms:,.0f} ms" for q, ms in quantiles.items()))
    if version:
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(version["created"] / 1000))
        grid.add_row("announced version", f"{version['number']}, step {version['step']:,}, {made}, {version['path']}")
    served = found["served_version"]
    grid.add_row("served version", "none" if served is None else str(served))
    for variant, means in found["mrr"].items():
        if means["all"] is not None:
            grid.add_row(f"MRR, {variant}", f"{means['all']:.4f} since the learner started")
    return grid
