"""The best window of recent popularity in reports, and the differences from the best baseline."""

from typing import Any

import pytest

from infra.experiments.baseline_report import against_baselines, describe_window
from infra.experiments.harness import ScoredEvents
from model.learner import RankedEvent
from model.metrics.baselines import BASELINES

RANKS = {"popularity": 4.0, "popularity_1h": 5.0, "popularity_1d": 2.5, "popularity_7d": 3.0, "popularity_30d": 10.0,
         "cooccurrence": 8.0}  # fmt: skip


@pytest.fixture
def report() -> dict[str, Any]:
    recorded = ScoredEvents()
    for n in range(40):
        event = RankedEvent(f"u{n % 20}", "t", n, 0, 0, {})
        recorded.add(event, {"full": 2.0, "backbone_only": 2.0, "no_backbone": 4.0, **RANKS})
    return against_baselines(recorded, ["no_backbone"])


def test_best_window_of_recent_popularity_is_named(report: dict[str, Any]) -> None:
    assert report["best_recent_window"] == report["best"] == "popularity_1d"
    assert "popularity_1d" in describe_window(report["best_recent_window"])
    assert {name: report["mrr"][name]["all"] for name in BASELINES} == {name: 1 / rank for name, rank in RANKS.items()}


def test_curves_show_the_best_window_only(report: dict[str, Any]) -> None:
    assert list(report["curve"]) == [
        "events", "full", "backbone_only", "no_backbone", "popularity", "popularity_1d", "cooccurrence",
    ]  # fmt: skip


def test_differences_include_the_best_baseline(report: dict[str, Any]) -> None:
    gains = {(pair["variant"], pair["reference"]): pair["gain"]["all"]["mean"] for pair in report["gains"]}
    assert gains == pytest.approx(
        {("full", "no_backbone"): 0.25, ("full", "popularity_1d"): 0.1, ("backbone_only", "popularity_1d"): 0.1}
    )
