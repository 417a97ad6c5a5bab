"""The evaluation: its order and launch rule, a known answer that it must find, and the report that others read."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from infra.data.datasets import DataSet
from infra.experiments import evaluate
from model.learner import Learner, UserUpdate, new_pipeline
from model.state.stream_state import TitleMetadata
from streaming.records import HISTORY
from tests.support.evaluation import DAY, SETTINGS, START, checkerboard, data_of, no_text
from tests.support.learner import directions

MODELS: Final = ["full", "no_backbone", "frozen", "popularity", "popularity_recent", "cooccurrence"]
MEASURED: Final = ("coverage", "popularity", "with_new")  # of what is shown
SLICES: Final = ["all", "new_titles", "unseen_titles", "new_users"]


def some_text(texts: Sequence[str]) -> NDArray[np.float32]:
    return directions(np.random.default_rng(1), len(texts))


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return evaluate.evaluate(checkerboard(480), no_text, SETTINGS)


def test_on_a_checkerboard_the_model_beats_popularity_clearly(report: dict[str, Any]) -> None:
    mrr = {name: of["all"] for name, of in report["mrr"].items()}
    assert mrr["full"] > 1.3 * mrr["popularity"]
    assert mrr["no_backbone"] > 1.3 * mrr["popularity"]


def test_the_report_has_the_shape_that_others_read(report: dict[str, Any], tmp_path: Path) -> None:
    assert report["events"] == 480
    assert report["scored"] == 480 - 96  # the first fifth is learned and not counted
    assert report["seconds"] >= 0
    assert report["simulated"] is True
    assert report["settings"]["seed"] == 1
    for measure in ("mrr", "hr10", "ndcg10"):
        assert list(report[measure]) == MODELS
        for name in MODELS:
            assert list(report[measure][name]) == SLICES
            values = [value for value in report[measure][name].values() if value is not None]
            assert all(0 <= value <= 1 for value in values)
    evaluate.write(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["mrr"] == report["mrr"]
    printed = list(evaluate.lines(report))
    assert [line.split()[0] for line in printed[2 : 2 + len(MODELS)]] == MODELS
    assert "480 events, 384 scored" in printed[0]


def test_the_report_tells_how_titles_are_ranked_by_their_age(report: dict[str, Any]) -> None:
    by_age = report["by_age"]
    assert list(by_age["scored"]) == ["0", "1-4", "5-19", "20+"]
    assert sum(by_age["scored"].values()) == report["scored"]
    for measure in ("mrr", "hr10"):
        assert list(by_age[measure]) == MODELS
        for name, means in by_age[measure].items():
            total = sum((means[age] or 0.0) * count for age, count in by_age["scored"].items())
            assert total / report["scored"] == pytest.approx(report[measure][name]["all"])
    assert by_age["mrr"]["full"]["0"] == pytest.approx(report["mrr"]["full"]["unseen_titles"])


def test_the_report_tells_what_was_shown_beside_what_was_taken(report: dict[str, Any]) -> None:
    shown = report["shown"]
    assert (shown["top"], shown["candidates"]) == (10, 60)
    for measure in MEASURED:
        assert list(shown[measure]) == [*MODELS, "taken"]
    assert all(0 <= value <= 1 for value in [*shown["coverage"].values(), *shown["with_new"].values()])
    taken = sum(report["by_age"]["scored"][age] for age in ("0", "1-4")) / report["scored"]
    assert taken <= shown["with_new"]["taken"] <= 1  # 5 to 9 events are new, too
    assert shown["popularity"]["popularity"] > shown["popularity"]["full"]  # the charts are what they are


def test_a_ranking_that_only_repeats_the_charts_is_seen_to() -> None:
    """Ten hits of 12 events each in the part that is not counted; after it nobody watches them: 48 titles, 10 events
    each."""
    hits = [(n % 7, n % 10, START + n) for n in range(120)]
    rest = [(n % 7, 10 + n % 48, START + 120 + n) for n in range(480)]
    shown = evaluate.evaluate(data_of(hits + rest), no_text, replace(SETTINGS, repeats=True))["shown"]
    assert shown["candidates"] == 58
    of_charts, of_viewers = ({measure: shown[measure][n] for measure in MEASURED} for n in ("popularity", "taken"))
    assert of_charts == {"coverage": 10 / 58, "popularity": 12.0, "with_new": 0.0}
    assert of_viewers == {"coverage": 48 / 58, "popularity": 4.5, "with_new": 1.0}
    assert shown["coverage"]["full"] > 10 / 58


def test_the_same_data_and_seed_give_the_same_report_and_progress_is_told() -> None:
    data, told = checkerboard(160), []
    reports = [evaluate.evaluate(data, some_text, SETTINGS, lambda done, whole, _: told.append((done, whole)))]
    torch.manual_seed(77)
    np.random.seed(77)
    reports.append(evaluate.evaluate(data, some_text, SETTINGS))
    for one in reports:
        del one["seconds"]
    assert reports[0] == reports[1]
    assert told == [(64, 160), (128, 160), (160, 160)]


def test_where_people_come_back_to_the_same_titles_the_seen_ones_stay_in_the_ranking() -> None:
    data = checkerboard(300, titles=8, repeats=True)
    with_seen = evaluate.evaluate(data, no_text, replace(SETTINGS, repeats=True))
    without = evaluate.evaluate(data, no_text, SETTINGS)
    assert with_seen["scored"] == 240
    assert without["scored"] < 100  # an event on a title that was seen is no target then
    assert with_seen["settings"]["repeats"] is True
    assert with_seen["mrr"]["full"]["all"] > with_seen["mrr"]["popularity"]["all"]


def late_titles() -> DataSet:
    """Titles that launch all along: by a date, by their year, by nothing but their first event."""
    random = np.random.default_rng(3)
    rows = [
        (int(random.integers(6)), int(random.integers(max(n // 8 - 6, 0), n // 8 + 1)), START + n * DAY)
        for n in range(240)
    ]
    described = [
        {"item": item, "title": f"title {item}", "launched_ts": START + item * 7 * DAY + 100 if item % 3 else None}
        for item in range(40)
    ]
    return data_of(rows, described)


def test_a_title_is_in_nobodys_candidates_before_its_launch_and_always_before_its_first_event() -> None:
    data = late_titles()
    learner = Learner(replace(SETTINGS, repeats=True))
    launch_of = {launch.title: int(launch.ts or 0) for launch in data.launches}
    done, later = 0, 0
    for batch in evaluate.micro_batches(data, some_text):
        ranked = learner.observe(batch).ranked
        done += len(ranked)
        end = data.event(done - 1).ts
        catalog, candidate_V = learner.stream_state.catalog, learner.stream_state.titles().candidate_V
        candidates = {catalog.ids[row] for row in np.flatnonzero(candidate_V)}
        assert candidates == {title for title, ts in launch_of.items() if ts < end and title in data.titles}
        later += len(data.titles) - len(candidates)
        assert all(np.isfinite(event.ranks["full"]) for event in ranked)  # launched just before, at the latest
    assert done == 240
    assert later > 20


def test_micro_batches_carry_every_event_once_with_the_history_up_to_it() -> None:
    data = late_titles()
    seen: dict[str, list[str]] = {}
    orders = []
    for batch in evaluate.micro_batches(data, no_text):
        assert all(isinstance(item, TitleMetadata | UserUpdate) for item in batch)
        user_update = [item for item in batch if isinstance(item, UserUpdate)]
        assert len({item.user for item in user_update}) == len(user_update)
        for item in user_update:
            seen.setdefault(item.user, []).extend(item.titles[place] for place in item.new)
            assert list(item.titles) == seen[item.user][-HISTORY - len(item.new) :]
            orders += list(item.order)
    assert sorted(orders) == list(range(240))


def test_titles_that_never_have_an_event_are_no_candidates_and_empty_text_is_none() -> None:
    data = data_of([(0, 0, START), (1, 1, START + 9)], [{"item": n, "title": "x"} for n in range(4)])
    assert len(data.launches) == 4
    launched = [
        item for batch in evaluate.micro_batches(data, no_text) for item in batch if isinstance(item, TitleMetadata)
    ]
    assert sorted(item.title for item in launched) == ["0", "1"]
    assert all(len(item.semantic) == 0 for item in launched)


def test_a_frozen_contender_ranks_with_what_it_knew_and_the_living_one_goes_on() -> None:
    pipeline = new_pipeline(SETTINGS)
    learner = Learner(SETTINGS, {"full": pipeline})
    batches = list(evaluate.micro_batches(checkerboard(256), some_text))
    for batch in batches[:2]:
        learner.observe(batch)
    learner.pipelines["frozen"] = still = evaluate.frozen(pipeline)
    first = learner.observe(batches[2])
    assert all(event.ranks["full"] == event.ranks["frozen"] for event in first.ranked)  # before it learns more
    assert first.losses["frozen"] == {}
    weights, sequence = still.ranker.weights_D.copy(), still.sequence
    assert sequence is not None
    assert pipeline.sequence is not None
    averages = {name: value.clone() for name, value in sequence.served.state_dict().items()}
    second = learner.observe(batches[3])
    assert any(event.ranks["full"] != event.ranks["frozen"] for event in second.ranked)
    assert (still.ranker.weights_D == weights).all()
    assert all(torch.equal(value, averages[name]) for name, value in sequence.served.state_dict().items())
    living = pipeline.sequence.served.state_dict()
    assert any(not torch.equal(value, averages[name]) for name, value in living.items())


def test_a_frozen_contender_changes_nothing_for_the_living_one() -> None:
    batches = list(evaluate.micro_batches(checkerboard(192), some_text))
    ranks = []
    for freeze in (False, True):
        learner = Learner(SETTINGS, {"full": new_pipeline(SETTINGS)})
        learner.observe(batches[0])
        if freeze:
            learner.pipelines["frozen"] = evaluate.frozen(learner.pipelines["full"])
        ranked = [event for batch in batches[1:] for event in learner.observe(batch).ranked]
        ranks.append([event.ranks["full"] for event in ranked])
    assert ranks[0] == ranks[1]
