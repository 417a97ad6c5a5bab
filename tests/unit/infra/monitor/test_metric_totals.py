"""Metric totals: sums from a scrape, differences of two snapshots, and means."""

import math

import pytest

from infra.monitor.metric_totals import MetricSums, learner_totals, mean_table, sums_of, totals_since
from infra.monitor.scrape import Scrape
from model.metrics.ranking import RANKING_METRICS, SLICES, PrequentialMetrics


def learner_page(ranking: PrequentialMetrics) -> str:
    """The lines that the learner exports for one variant."""
    sums = sums_of(ranking)
    lines = [
        f'premiere_prequential_sum_total{{variant="full",metric="{m}",slice="{s}"}} {float(sums.total[i, j])!r}'
        for i, m in enumerate(RANKING_METRICS)
        for j, s in enumerate(SLICES)
    ]
    lines += [f'premiere_prequential_scored_total{{slice="{s}"}} {sums.scored[j]}' for j, s in enumerate(SLICES)]
    return "\n".join(lines) + "\n"


def test_totals_since_gives_means_of_a_period() -> None:
    whole, part = PrequentialMetrics(), PrequentialMetrics()
    for rank in (1, 4, math.inf):
        whole.add(rank, 0, 100)
    before = learner_totals(Scrape.parse(learner_page(whole)))
    for rank in (2, 20, 3):
        whole.add(rank, 30, 2)
        part.add(rank, 30, 2)
    found = mean_table(totals_since(learner_totals(Scrape.parse(learner_page(whole))), before))
    want = part.report()
    for measure in RANKING_METRICS:
        assert found[measure]["full"]["all"] == pytest.approx(want[measure]["all"])
        assert found[measure]["full"]["new_users"] == pytest.approx(want[measure]["new_users"])
        assert found[measure]["full"]["new_titles"] is None  # the period has no event on a new title


def test_variant_that_starts_later_counts_from_zero() -> None:
    ranking = PrequentialMetrics()
    ranking.add(2, 0, 0)
    found = totals_since({"served": sums_of(ranking)}, {})
    assert found["served"].mean("mrr", "all") == 0.5
    assert MetricSums().mean("mrr", "all") is None
