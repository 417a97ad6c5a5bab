"""The report of the staleness experiment: its sentences, its numbers and its figure."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infra.experiments import staleness, staleness_report
from infra.experiments.backbone_ranks import BACKBONE_ONLY, ORDER_LABELS
from infra.experiments.stale_lists import EVENT_AGES, FILTERED, HOUR_AGES
from infra.experiments.staleness import FIRST_HORIZON, HORIZONS, NEXT_EVENT
from infra.experiments.verdicts import verdict
from tests.support.evaluation import SETTINGS, SILENT, random_text, ring
from tests.support.figures import axes_of, labeled_lines, tick_labels


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """A report of a short run; its numbers do not matter."""
    return staleness.report(ring(240), random_text, replace(SETTINGS, repeats=True), SILENT, sample_every=10)


def test_share_kept_is_relative_to_age_0_over_the_same_events() -> None:
    table = {
        "mrr": {"a": {"0 events": 0.5, "5 events": 0.2, "9 events": None}},
        "mrr_at_age_0": {
            "a": {"0 events": 0.5, "5 events": 0.4, "9 events": None},
            "b": {"0 events": 1.0, "5 events": 0.8, "9 events": None},
        },
    }
    assert staleness_report.share_kept(table, "a") == {"0 events": 1.0, "5 events": 0.5, "9 events": None}
    assert staleness_report.share_kept(table, "a", "b") == {"0 events": 0.5, "5 events": 0.25, "9 events": None}


def test_conclusions_follow_verdicts(found: dict[str, Any]) -> None:
    text = "\n".join(staleness_report.conclusions(found))
    for order in ORDER_LABELS:
        assert f"matching horizon from 2 events on: {found['matching_horizon'][order][FILTERED]['verdict']}" in text
    now = found["by_hours"][BACKBONE_ONLY][FILTERED]["gain"][f"{FIRST_HORIZON} over {NEXT_EVENT}"]["0 hours"]
    assert f"all users: {verdict(now)}, MRR {now['mean']:+.4f}" in text


def test_lines_have_mrr_and_share_kept_by_age(found: dict[str, Any]) -> None:
    text = "\n".join(staleness_report.lines(found))
    mrr = found["by_events"][BACKBONE_ONLY][FILTERED]["mrr"][HORIZONS]
    assert f"{mrr['5 events']:.4f}" in text
    assert f"{mrr['5 events'] / mrr['0 events']:.0%}" in text


def test_figure_has_the_share_of_mrr_that_each_variant_keeps(found: dict[str, Any]) -> None:
    with axes_of(staleness_report.draw, found) as panels:
        tables = [(key, order) for key in ("by_events", "by_hours") for order in ORDER_LABELS]
        for axes, (key, order) in zip(panels, tables, strict=True):
            table, curves = found[key][order][FILTERED], labeled_lines(axes)
            assert axes.get_title() == ORDER_LABELS[order]
            assert tick_labels(axes) == [str(age) for age in (EVENT_AGES if key == "by_events" else HOUR_AGES)]
            assert set(curves) == set(table["mrr"])
            for variant, mrr in table["mrr"].items():
                at_0 = table["mrr_at_age_0"][NEXT_EVENT]
                share = [None if value is None else 100 * value / at_0[age] for age, value in mrr.items()]
                np.testing.assert_allclose(curves[variant], np.array([range(len(share)), share], float))
        count = found["by_events"]["scored"][BACKBONE_ONLY]
        assert panels[0].get_xlabel() == f"events since the list was made ({count:,} events scored)"
        count = found["by_hours"]["scored"]
        assert panels[3].get_xlabel() == f"hours since the list was made ({count:,} events scored)"
        assert panels[0].get_ylabel() == "MRR, % of next-event training at age 0"
