"""The prequential evaluation: order of events, launch rule, known results, and the shape of the report."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from infra.data.datasets import from_tables
from infra.data.tables import Table
from infra.experiments import evaluate
from infra.experiments.prequential import micro_batches
from infra.progress import Reporter
from model.learner import Learner
from model.pipeline import new_pipeline
from tests.support.evaluation import SETTINGS, SILENT, START_S, checkerboard, dataset_of, no_text, random_text

RECENT: Final = ["popularity_1h", "popularity_1d", "popularity_7d", "popularity_30d"]
VARIANTS: Final = ["full", "no_backbone", "frozen", "popularity", *RECENT, "cooccurrence"]
BEYOND_ACCURACY: Final = ("coverage", "popularity_bias", "new_title_share")
SLICES: Final = ["all", "new_titles", "unseen_titles", "new_users"]
NINE_IMPRESSIONS_AND_A_PLAY: Final = ["impression"] * 9 + ["play"]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return evaluate.evaluate(checkerboard(480), no_text, SETTINGS, SILENT)


@pytest.mark.learned
def test_model_beats_popularity_on_checkerboard(report: dict[str, Any]) -> None:
    mrr = {name: by_slice["all"] for name, by_slice in report["mrr"].items()}
    assert mrr["full"] > 1.3 * mrr["popularity"]
    assert mrr["no_backbone"] > 1.3 * mrr["popularity"]


def test_report_has_the_documented_shape(report: dict[str, Any], tmp_path: Path) -> None:
    assert report["events"] == 480
    assert report["scored"] == 480 - 96  # the first fifth is learned but not scored
    assert report["seconds"] >= 0
    assert report["simulated"] is True
    assert report["settings"]["seed"] == 1
    for metric in ("mrr", "hr10", "ndcg10"):
        assert list(report[metric]) == VARIANTS
        for name in VARIANTS:
            assert list(report[metric][name]) == SLICES
            values = [value for value in report[metric][name].values() if value is not None]
            assert all(0 <= value <= 1 for value in values)
    evaluate.write(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["mrr"] == report["mrr"]
    printed = list(evaluate.lines(report))
    assert [line.split()[0] for line in printed[2 : 2 + len(VARIANTS)]] == VARIANTS
    assert "480 events, 384 scored" in printed[0]


def test_report_names_the_best_window_of_recent_popularity(report: dict[str, Any]) -> None:
    best = max(RECENT, key=lambda name: report["mrr"][name]["all"])
    assert report["best_recent_window"] == best
    assert sum(best in line for line in evaluate.lines(report) if "`" in line) == 1


def test_report_by_popularity_averages_to_overall_metrics(report: dict[str, Any]) -> None:
    by_popularity = report["by_popularity"]
    assert list(by_popularity["scored"]) == ["0", "1-4", "5-19", "20+"]
    assert sum(by_popularity["scored"].values()) == report["scored"]
    for metric in ("mrr", "hr10"):
        assert list(by_popularity[metric]) == VARIANTS
        for name, means in by_popularity[metric].items():
            total = sum((means[bucket] or 0.0) * count for bucket, count in by_popularity["scored"].items())
            assert total / report["scored"] == pytest.approx(report[metric][name]["all"])
    assert by_popularity["mrr"]["full"]["0"] == pytest.approx(report["mrr"]["full"]["unseen_titles"])


@pytest.mark.learned
def test_report_has_beyond_accuracy_of_lists_and_of_actual_choices(report: dict[str, Any]) -> None:
    lists = report["beyond_accuracy"]
    assert (lists["top"], lists["candidates"]) == (10, 60)
    for metric in BEYOND_ACCURACY:
        assert list(lists[metric]) == [*VARIANTS, "actual"]
    assert all(0 <= value <= 1 for value in [*lists["coverage"].values(), *lists["new_title_share"].values()])
    new_share = sum(report["by_popularity"]["scored"][bucket] for bucket in ("0", "1-4")) / report["scored"]
    assert new_share <= lists["new_title_share"]["actual"] <= 1  # 5 to 9 events are new, too
    assert lists["popularity_bias"]["popularity"] > lists["popularity_bias"]["full"]


@pytest.mark.learned
def test_beyond_accuracy_reveals_most_popular_baseline() -> None:
    """The warm-up has ten titles with 12 events each. After it, users watch 48 other titles, 10 events each."""
    hits = [(n % 7, n % 10, START_S + n) for n in range(120)]
    rest = [(n % 7, 10 + n % 48, START_S + 120 + n) for n in range(480)]
    settings = replace(SETTINGS, repeats=True)
    lists = evaluate.evaluate(dataset_of(hits + rest), no_text, settings, SILENT)["beyond_accuracy"]
    assert lists["candidates"] == 58
    of_popularity, of_users = (
        {metric: lists[metric][n] for metric in BEYOND_ACCURACY} for n in ("popularity", "actual")
    )
    assert of_popularity == {"coverage": 10 / 58, "popularity_bias": 12.0, "new_title_share": 0.0}
    assert of_users == {"coverage": 48 / 58, "popularity_bias": 4.5, "new_title_share": 1.0}
    assert lists["coverage"]["full"] > 10 / 58


def test_same_data_and_seed_give_same_report() -> None:
    data, out = checkerboard(160), io.StringIO()
    reports = [evaluate.evaluate(data, random_text, SETTINGS, Reporter(Console(file=out), interval_s=0))]
    torch.manual_seed(77)
    np.random.seed(77)
    reports.append(evaluate.evaluate(data, random_text, SETTINGS, SILENT))
    for one in reports:
        del one["seconds"]
    assert reports[0] == reports[1]
    shown = [line.split() for line in out.getvalue().splitlines()]
    assert [words[:3] for words in shown] == [[done, "of", "160"] for done in ("64", "128", "160")]
    assert shown[-1][-8:-6] == ["full", f"{reports[0]['mrr']['full']['all']:.4f}"]


@pytest.mark.learned
def test_repeats_keep_seen_titles_in_the_ranking() -> None:
    data = checkerboard(300, titles=8, repeats=True)
    with_seen = evaluate.evaluate(data, no_text, replace(SETTINGS, repeats=True), SILENT)
    without = evaluate.evaluate(data, no_text, SETTINGS, SILENT)
    assert with_seen["scored"] == 240
    assert without["scored"] < 100  # without repeats, an event on a seen title is not scored
    assert with_seen["settings"]["repeats"] is True
    assert with_seen["mrr"]["full"]["all"] > with_seen["mrr"]["popularity"]["all"]


def test_frozen_pipeline_keeps_its_weights_while_original_learns() -> None:
    pipeline = new_pipeline(SETTINGS)
    learner = Learner(SETTINGS, {"full": pipeline})
    batches = list(micro_batches(checkerboard(256), random_text))
    for batch in batches[:2]:
        learner.observe(batch)
    learner.pipelines["frozen"] = frozen = evaluate.freeze(pipeline)
    first = learner.observe(batches[2])
    assert all(event.ranks["full"] == event.ranks["frozen"] for event in first.ranked)
    assert first.losses["frozen"] == {}
    weights, sequence = frozen.ranker.linear_weights_F.copy(), frozen.sequence
    assert sequence is not None
    assert pipeline.sequence is not None
    averages = {name: value.clone() for name, value in sequence.served.state_dict().items()}
    second = learner.observe(batches[3])
    assert any(event.ranks["full"] != event.ranks["frozen"] for event in second.ranked)
    assert (frozen.ranker.linear_weights_F == weights).all()
    assert all(torch.equal(value, averages[name]) for name, value in sequence.served.state_dict().items())
    learning = pipeline.sequence.served.state_dict()
    assert any(not torch.equal(value, averages[name]) for name, value in learning.items())


def test_frozen_copy_does_not_change_the_original() -> None:
    batches = list(micro_batches(checkerboard(192), random_text))
    ranks = []
    for freeze in (False, True):
        learner = Learner(SETTINGS, {"full": new_pipeline(SETTINGS)})
        learner.observe(batches[0])
        if freeze:
            learner.pipelines["frozen"] = evaluate.freeze(learner.served_pipeline)
        ranked = [event for batch in batches[1:] for event in learner.observe(batch).ranked]
        ranks.append([event.ranks["full"] for event in ranked])
    assert ranks[0] == ranks[1]


def test_impressions_do_not_prolong_the_warm_up() -> None:
    """Nine impressions before each play: a fifth of the events is a fifth of the plays, and the others are scored."""
    rows = [(k % 20, k // 20, k, action) for k in range(400) for action in NINE_IMPRESSIONS_AND_A_PLAY]
    events = pd.DataFrame(rows, columns=["user", "item", "ts", "action"])
    data = from_tables(Table("events", events), None, name="impressions", simulated=True)
    assert data.targets_before(len(data)) == 400
    assert evaluate.evaluate(data, no_text, SETTINGS, SILENT)["scored"] == 320
