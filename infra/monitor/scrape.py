"""Client for the flows' Prometheus endpoints: scrapes `/metrics` and returns the samples as numbers.

The demo, `premiere status` and `premiere produce` read the same endpoints as Prometheus, so all of them show the same
numbers. Every sample is a monotonic counter or a current state: the change over an interval is a difference of two
scrapes. A flow that is starting or down does not answer; its scrape is None, which is not an error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

from infra.local.supervisor import FLOWS
from infra.monitor.metrics_server import metrics_port
from infra.settings import Settings

GAUGE_MERGE: Final = {  # gauge -> how the values of a flow's workers become one; all other samples are summed
    "premiere_version_served": min,
    "premiere_rollback_version": max,
    "premiere_read_offset": min,
}
_OPENER: Final = build_opener(ProxyHandler({}))  # the flows are ours: a proxy for the outside does not reach them
SCRAPE_TIMEOUT_S: Final = 2.0  # per endpoint: a flow that is busy in numeric code answers late


class MetricValue(NamedTuple):
    """The value of one sample, with its labels."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Scrape:
    """The metrics of one flow at one moment: sample name -> values."""

    samples: Mapping[str, list[MetricValue]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a response in Prometheus's text format."""
        samples: dict[str, list[MetricValue]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(MetricValue(sample.labels, sample.value))
        return cls(samples)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the values with these labels; 0 if there is none."""
        return sum(sample.value for sample in self.select(name, **labels))

    def select(self, name: str, **labels: str) -> list[MetricValue]:
        """The values of a sample with these labels."""
        found = self.samples.get(name, [])
        return [sample for sample in found if labels.items() <= sample.labels.items()]

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """The values of a sample, keyed by one of its labels."""
        return {sample.labels[label]: sample.value for sample in self.select(name) if label in sample.labels}

    @classmethod
    def merged(cls, scrapes: Sequence[Self]) -> Self:
        """Merge the scrapes of a flow's workers: sums, except for the gauges in `GAUGE_MERGE`."""
        if len(scrapes) == 1:
            return scrapes[0]
        found: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = {}
        for scrape in scrapes:
            for name, samples in scrape.samples.items():
                for labels, value in samples:
                    found.setdefault(name, {}).setdefault(tuple(sorted(labels.items())), []).append(value)
        merged: dict[str, list[MetricValue]] = {}
        for name, by_labels in found.items():
            merge = GAUGE_MERGE.get(name, sum)
            merged[name] = [MetricValue(dict(labels), merge(values)) for labels, values in by_labels.items()]
        return cls(merged)


@dataclass(frozen=True)
class Histogram:
    """A cumulative histogram: the number of observations at or below each bound; the last bound is infinity."""

    bounds: tuple[float, ...] = ()
    cumulative_counts: tuple[float, ...] = ()

    @classmethod
    def from_scrape(cls, scrape: Scrape, name: str, **labels: str) -> Self:
        """The histogram `name` of a scrape, summed over the labels that are not given."""
        counts: dict[float, float] = {}
        for sample_labels, count in scrape.select(f"{name}_bucket", **labels):
            bound = float(sample_labels["le"])
            counts[bound] = counts.get(bound, 0.0) + count
        return cls(tuple(sorted(counts)), tuple(counts[bound] for bound in sorted(counts)))

    @property
    def count(self) -> float:
        """The number of observations."""
        return self.cumulative_counts[-1] if self.cumulative_counts else 0.0

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """The observations since `earlier`; all observations if the flow restarted in between."""
        if earlier.bounds != self.bounds or earlier.count > self.count:
            return self
        counts = zip(self.cumulative_counts, earlier.cumulative_counts, strict=True)
        return Histogram(self.bounds, tuple(now - then for now, then in counts))

    def bucket_fractions(self) -> list[float]:
        """The fraction of the observations in each bucket."""
        before = (0.0, *self.cumulative_counts[:-1])
        return [(b - a) / (self.count or 1.0) for a, b in zip(before, self.cumulative_counts, strict=True)]

    def quantile(self, q: float) -> float | None:
        """The quantile, interpolated within its bucket as in Prometheus; None without observations."""
        if not self.count:
            return None
        wanted, lower_bound, lower_count = q * self.count, 0.0, 0.0
        for bound, count in zip(self.bounds, self.cumulative_counts, strict=True):
            if count >= wanted and count > lower_count:
                if math.isinf(bound):
                    return lower_bound
                return lower_bound + (bound - lower_bound) * (wanted - lower_count) / (count - lower_count)
            lower_bound, lower_count = bound, count
        return lower_bound


def scrape_flow(settings: Settings, flow: str, timeout_s: float = SCRAPE_TIMEOUT_S) -> Scrape | None:
    """Scrape all workers of a flow and merge them; None if a worker does not answer or metrics are off."""
    scrapes: list[Scrape] = []
    for worker in range(settings.worker_count(flow)):
        if (scrape := _scrape_port(settings, metrics_port(settings, flow, worker), timeout_s)) is None:
            return None
        scrapes.append(scrape)
    return Scrape.merged(scrapes)


def _scrape_port(settings: Settings, port: int, timeout_s: float) -> Scrape | None:
    answer = fetch(settings, port, "/metrics", timeout_s)
    try:
        return None if answer is None else Scrape.parse(answer[1])
    except ValueError:  # truncated
        return None


def fetch(settings: Settings, port: int, path: str, timeout_s: float = SCRAPE_TIMEOUT_S) -> tuple[int, str] | None:
    """HTTP status and text of a flow's endpoint; None if it does not answer, or if the port is 0."""
    if not port:
        return None
    host = settings.metrics_host
    host = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)
    try:
        with _OPENER.open(f"http://{host}:{port}{path}", timeout=timeout_s) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, ""
    except (OSError, ValueError):  # refused, timed out or truncated
        return None


def scrape_flows(settings: Settings, flows: Sequence[str] = FLOWS) -> dict[str, Scrape | None]:
    """Scrape several flows."""
    return {flow: scrape_flow(settings, flow) for flow in flows}
