"""Scraping a flow's real Prometheus endpoint: samples, merged workers and histograms."""

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, Gauge
from prometheus_client import Histogram as Observed

from infra.monitor.metrics_server import start_metrics_server
from infra.monitor.scrape import Histogram, Scrape, scrape_flow
from infra.settings import Settings
from tests.support.ports import free_base_port

PAGE = """\
# TYPE letters counter
letters_total{reason="not JSON"} 3.0
letters_total{reason="too old"} 2.0
# TYPE age histogram
age_bucket{kind="event",le="0.1"} 1.0
age_bucket{kind="event",le="1.0"} 3.0
age_bucket{kind="event",le="+Inf"} 4.0
age_count{kind="event"} 4.0
age_sum{kind="event"} 7.0
"""
WORKER_PAGE = """
premiere_events_total {}.0
premiere_version_served {}.0
premiere_read_offset{{partition="0",topic="activity"}} {}.0
premiere_end_to_end_latency_seconds_bucket{{kind="event",le="1.0"}} {}.0
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Settings]:
    """A flow's endpoint with metrics of the test."""
    settings = Settings(metrics_port=free_base_port(Settings(metrics_port=23_400)))
    gauge = Gauge("test_scrape_sum", "sums", ["variant", "metric", "slice"])
    delays = Observed("test_scrape_seconds", "delays", buckets=(0.1, 1.0))
    gauge.labels("full", "mrr", "all").set(4.5)
    for seconds in (0.05, 0.3, 0.5, 7.0):
        delays.observe(seconds)
    start_metrics_server(settings, "learn")
    yield settings
    REGISTRY.unregister(gauge)
    REGISTRY.unregister(delays)


def test_scrape_reads_endpoint_over_http(endpoint: Settings) -> None:
    page = scrape_flow(endpoint, "learn")
    assert page is not None
    assert page.value("test_scrape_sum", variant="full", metric="mrr") == 4.5
    assert Histogram.from_scrape(page, "test_scrape_seconds").cumulative_counts == (1, 3, 4)


def test_proxy_of_the_environment_is_not_used(endpoint: Settings) -> None:
    settings = f"Settings(metrics_port={endpoint.metrics_port})"
    code = f"from infra.monitor.scrape import *; print(scrape_flow({settings}, 'learn'))"
    env = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    env["http_proxy"] = "http://127.0.0.1:9"  # nothing answers there
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Scrape(")


def test_unreachable_flow_gives_none(endpoint: Settings) -> None:
    assert scrape_flow(endpoint, "publish") is None
    assert scrape_flow(Settings(metrics_port=0), "learn") is None


def test_worker_scrapes_merge_into_one() -> None:
    one, two = Scrape.parse(WORKER_PAGE.format(5, 7, 3, 2)), Scrape.parse(WORKER_PAGE.format(6, 6, 9, 1))
    page = Scrape.merged([one, two])
    assert page.value("premiere_events_total") == 11
    assert page.value("premiere_version_served") == 6  # the oldest version in use
    assert page.value("premiere_read_offset", topic="activity") == 3  # the slowest worker
    assert Histogram.from_scrape(page, "premiere_end_to_end_latency_seconds", kind="event").cumulative_counts == (3,)


def test_value_sums_over_other_labels() -> None:
    page = Scrape.parse(PAGE)
    assert page.value("letters_total") == 5
    assert page.value("letters_total", reason="too old") == 2
    assert page.value("nothing_total") == 0
    assert page.by_label("letters_total", "reason") == {"not JSON": 3, "too old": 2}


def test_quantile_interpolates_within_bucket() -> None:
    ages = Histogram.from_scrape(Scrape.parse(PAGE), "age", kind="event")
    assert ages.count == 4
    assert ages.quantile(0.25) == pytest.approx(0.1)
    assert ages.quantile(0.5) == pytest.approx(0.1 + 0.9 / 2)
    assert ages.quantile(0.99) == 1.0  # the last finite bound
    assert ages.bucket_fractions() == [0.25, 0.5, 0.25]
    assert Histogram().quantile(0.5) is None


def test_quantile_lies_in_bucket_of_observation() -> None:
    observations = sorted((0.02, 0.07, 0.2, 0.2, 0.4, 0.9, 1.5, 3.0, 3.0, 9.0))
    bounds = (0.05, 0.1, 0.5, 1.0, 5.0, 10.0, math.inf)
    histogram = Histogram(bounds, tuple(float(sum(s <= b for s in observations)) for b in bounds))
    edges = list(itertools.pairwise((0.0, *bounds)))
    for k, value in enumerate(observations):
        low, high = next(edge for edge in edges if value <= edge[1])
        quantile = histogram.quantile((k + 0.5) / len(observations))
        assert quantile is not None
        assert low <= quantile <= high


def test_histogram_difference_restarts_with_flow() -> None:
    early, late = Histogram((1.0, math.inf), (2, 3)), Histogram((1.0, math.inf), (5, 7))
    assert (late - early).cumulative_counts == (3, 4)
    assert (early - late) == early
    assert (late - Histogram()) == late
