"""Metrics read back from the real endpoint of a flow, and what is worked out from them."""

import itertools
import math
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, Gauge
from prometheus_client import Histogram as Observed

from infra.monitor.metric_totals import Sums, of_learner, of_ranking, since, table
from infra.monitor.metrics_server import free_base, serve
from infra.monitor.scrape import Histogram, Scrape, read
from infra.settings import Settings
from model.metrics.ranking import MEASURES, SLICES, Prequential

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


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Settings]:
    """A flow's own endpoint, with metrics made for the test."""
    settings = Settings(metrics_port=free_base(Settings(metrics_port=23_400)))
    gauge = Gauge("test_scrape_sum", "sums", ["ranking", "measure", "slice"])
    delays = Observed("test_scrape_seconds", "delays", buckets=(0.1, 1.0))
    gauge.labels("full", "mrr", "all").set(4.5)
    for seconds in (0.05, 0.3, 0.5, 7.0):
        delays.observe(seconds)
    serve(settings, "learn")
    yield settings
    REGISTRY.unregister(gauge)
    REGISTRY.unregister(delays)


def test_a_flows_page_is_read_over_the_wire(endpoint: Settings) -> None:
    page = read(endpoint, "learn")
    assert page is not None
    assert page.value("test_scrape_sum", ranking="full", measure="mrr") == 4.5
    assert Histogram.of(page, "test_scrape_seconds").below == (1, 3, 4)


def test_a_flow_that_does_not_answer_is_an_answer(endpoint: Settings) -> None:
    assert read(endpoint, "publish") is None
    assert read(Settings(metrics_port=0), "learn") is None


def test_values_are_summed_over_the_labels_that_are_not_named() -> None:
    page = Scrape.parse(PAGE)
    assert page.value("letters_total") == 5
    assert page.value("letters_total", reason="too old") == 2
    assert page.value("nothing_total") == 0
    assert page.by("letters_total", "reason") == {"not JSON": 3, "too old": 2}


def test_a_quantile_is_interpolated_inside_its_bucket() -> None:
    ages = Histogram.of(Scrape.parse(PAGE), "age", kind="event")
    assert ages.count == 4
    assert ages.quantile(0.25) == pytest.approx(0.1)
    assert ages.quantile(0.5) == pytest.approx(0.1 + 0.9 / 2)
    assert ages.quantile(0.99) == 1.0  # beyond the last bound nothing more is known
    assert ages.shares() == [0.25, 0.5, 0.25]
    assert Histogram().quantile(0.5) is None


def test_every_quantile_lies_in_the_bucket_of_its_observation() -> None:
    seen = sorted((0.02, 0.07, 0.2, 0.2, 0.4, 0.9, 1.5, 3.0, 3.0, 9.0))
    bounds = (0.05, 0.1, 0.5, 1.0, 5.0, 10.0, math.inf)
    histogram = Histogram(bounds, tuple(float(sum(s <= b for s in seen)) for b in bounds))
    edges = list(itertools.pairwise((0.0, *bounds)))
    for k, value in enumerate(seen):
        low, high = next(edge for edge in edges if value <= edge[1])
        quantile = histogram.quantile((k + 0.5) / len(seen))
        assert quantile is not None
        assert low <= quantile <= high


def test_what_was_observed_since_is_a_difference_and_a_new_beginning_counts_whole() -> None:
    early, late = Histogram((1.0, math.inf), (2, 3)), Histogram((1.0, math.inf), (5, 7))
    assert (late - early).below == (3, 4)
    assert (early - late) == early
    assert (late - Histogram()) == late


def learner_page(ranking: Prequential) -> str:
    """The lines that the learner serves of one ranking."""
    sums = of_ranking(ranking)
    lines = [
        f'premiere_prequential_sum{{ranking="full",measure="{m}",slice="{s}"}} {float(sums.total[i, j])!r}'
        for i, m in enumerate(MEASURES)
        for j, s in enumerate(SLICES)
    ]
    lines += [f'premiere_prequential_scored{{slice="{s}"}} {sums.scored[j]}' for j, s in enumerate(SLICES)]
    return "\n".join(lines) + "\n"


def test_a_part_of_the_stream_is_the_difference_of_two_looks() -> None:
    whole, part = Prequential(), Prequential()
    for rank in (1, 4, math.inf):
        whole.add(rank, 0, 100)
    before = of_learner(Scrape.parse(learner_page(whole)))
    for rank in (2, 20, 3):
        whole.add(rank, 30, 2)
        part.add(rank, 30, 2)
    found = table(since(of_learner(Scrape.parse(learner_page(whole))), before))
    want = part.report()
    for measure in MEASURES:
        assert found[measure]["full"]["all"] == pytest.approx(want[measure]["all"])
        assert found[measure]["full"]["new_users"] == pytest.approx(want[measure]["new_users"])
        assert found[measure]["full"]["new_titles"] is None  # none of the part was on a new title


def test_a_ranking_that_begins_later_counts_from_zero() -> None:
    ranking = Prequential()
    ranking.add(2, 0, 0)
    found = since({"served": of_ranking(ranking)}, {})
    assert found["served"].mean("mrr", "all") == 0.5
    assert Sums().mean("mrr", "all") is None
