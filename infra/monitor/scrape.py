"""What the flows say of themselves on `/metrics`, read back as numbers.

The demo, `premiere status` and the replay's pace read the same pages that Prometheus does, so there is one account of
what happens and no second channel. All of it only grows or is a state: what happened between two looks is a difference.
A flow that starts, or is gone, does not answer: that is an answer, not an error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from infra.local.supervisor import FLOWS
from infra.monitor.metrics_server import port
from infra.settings import Settings

STATES: Final = {  # gauges that every worker of a flow has: what the flow as a whole is at
    "premiere_version_served": min,
    "premiere_version_held": max,
    "premiere_read_offset": min,
}
TIMEOUT: Final = 2.0  # seconds for one page: a flow deep in numeric code answers late


class MetricValue(NamedTuple):
    """One line of a page."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Scrape:
    """One flow's metrics at one moment, by sample name."""

    readings: Mapping[str, list[MetricValue]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """A page in Prometheus's text format."""
        readings: dict[str, list[MetricValue]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                readings.setdefault(sample.name, []).append(MetricValue(sample.labels, sample.value))
        return cls(readings)

    def value(self, name: str, **labels: str) -> float:
        """The sum of what carries these labels; 0 where nothing does."""
        return sum(reading.value for reading in self.find(name, **labels))

    def find(self, name: str, **labels: str) -> list[MetricValue]:
        """The readings of a sample that carry these labels."""
        found = self.readings.get(name, [])
        return [reading for reading in found if labels.items() <= reading.labels.items()]

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values of a sample by one of its labels."""
        return {reading.labels[label]: reading.value for reading in self.find(name) if label in reading.labels}

    @classmethod
    def merged(cls, pages: Sequence[Self]) -> Self:
        """The pages of a flow's workers as one: sums, but for the states that are not shared out."""
        if len(pages) == 1:
            return pages[0]
        found: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = {}
        for page in pages:
            for name, readings in page.readings.items():
                for labels, value in readings:
                    found.setdefault(name, {}).setdefault(tuple(sorted(labels.items())), []).append(value)
        return cls(
            {
                name: [MetricValue(dict(labels), STATES.get(name, sum)(values)) for labels, values in by_labels.items()]
                for name, by_labels in found.items()
            }
        )


@dataclass(frozen=True)
class Histogram:
    """How many observations lie at or below each bound; the last bound is infinity."""

    bounds: tuple[float, ...] = ()
    below: tuple[float, ...] = ()

    @classmethod
    def of(cls, scrape: Scrape, name: str, **labels: str) -> Self:
        """The histogram `name` of a page, summed over the labels that are not given."""
        below: dict[float, float] = {}
        for labelled, count in scrape.find(f"{name}_bucket", **labels):
            bound = float(labelled["le"])
            below[bound] = below.get(bound, 0.0) + count
        return cls(tuple(sorted(below)), tuple(below[bound] for bound in sorted(below)))

    @property
    def count(self) -> float:
        """All observations."""
        return self.below[-1] if self.below else 0.0

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """What was observed since; all of it where the flow began anew in between."""
        if earlier.bounds != self.bounds or earlier.count > self.count:
            return self
        return Histogram(self.bounds, tuple(now - then for now, then in zip(self.below, earlier.below, strict=True)))

    def shares(self) -> list[float]:
        """The share of the observations in each bucket."""
        before = (0.0, *self.below[:-1])
        return [(b - a) / (self.count or 1.0) for a, b in zip(before, self.below, strict=True)]

    def quantile(self, q: float) -> float | None:
        """By interpolation inside a bucket, as Prometheus does; None where there is no observation."""
        if not self.count:
            return None
        wanted, low, least = q * self.count, 0.0, 0.0
        for bound, below in zip(self.bounds, self.below, strict=True):
            if below >= wanted and below > least:
                return low if math.isinf(bound) else low + (bound - low) * (wanted - least) / (below - least)
            low, least = bound, below
        return low


def read(settings: Settings, flow: str, timeout: float = TIMEOUT) -> Scrape | None:
    """A flow's page, all its workers as one; None where one does not answer, or it serves no metrics."""
    pages: list[Scrape] = []
    for worker in range(settings.workers(flow)):
        if (page := _page(settings, port(settings, flow, worker), timeout)) is None:
            return None
        pages.append(page)
    return Scrape.merged(pages)


def _page(settings: Settings, number: int, timeout: float) -> Scrape | None:
    if not number:
        return None
    host = settings.metrics_host
    host = f"[{host}]" if ":" in host else {"0.0.0.0": "127.0.0.1"}.get(host, host)
    try:
        with urlopen(f"http://{host}:{number}/metrics", timeout=timeout) as page:
            return Scrape.parse(page.read().decode())
    except (OSError, ValueError):  # refused, timed out, cut short
        return None


def read_all(settings: Settings, flows: Sequence[str] = FLOWS) -> dict[str, Scrape | None]:
    """The pages of several flows."""
    return {flow: read(settings, flow) for flow in flows}
