"""Several tasks on one backbone: results that are known by construction, and the verdicts on them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from typer.testing import CliRunner

from infra.cli.main import app
from infra.experiments import multitask
from infra.experiments.evaluate import write
from infra.experiments.multitask import (
    LIKED_OR_NOT,
    NEXT_TITLE_BACKBONE,
    NEXT_TITLE_LISTS,
    ONLY_SUFFIX,
    SHARED,
    TASK_LABELS,
    TITLE_ONLY,
)
from infra.experiments.task_evaluators import (
    FREQUENCY_BASELINES,
    OVERALL,
    RECENT_USER,
    TITLE_FREQUENCIES,
    USER,
    USER_AND_TITLE,
)
from infra.experiments.verdicts import BETTER, INCONCLUSIVE, MIN_USERS, WORSE
from model.sequence.tasks import ACTION, GENRE
from model.settings import LearnerSettings
from tests.support.evaluation import GENRES, SETTINGS, SILENT, START_S, dataset_of, genre_cycle, no_text
from tests.support.learner import D_TEXT
from tests.support.multitask import gain_panel


def by_genre(texts: Any) -> Any:
    """An encoder with one dimension per genre."""
    vectors = np.zeros((len(texts), D_TEXT), np.float32)
    for row, text in enumerate(texts):
        vectors[row, next(k for k, genre in enumerate(GENRES) if genre in text)] = 1
    return vectors


def with_more_training(settings: LearnerSettings) -> LearnerSettings:
    """The same settings with more and larger training steps, to learn from few events."""
    s = settings.sequence
    return replace(settings, sequence=replace(s, steps=10, replay_windows=8, optim=replace(s.optim, lr=1e-2)))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return multitask.report(genre_cycle(640), by_genre, with_more_training(SETTINGS), SILENT)


def values_of(found: dict[str, Any], panel: str) -> dict[str, float]:
    return {name: by_part["all"] for name, by_part in found["panels"][panel]["values"].items()}


@pytest.mark.learned
def test_backbone_predicts_genre_cycle_and_frequencies_do_not(found: dict[str, Any]) -> None:
    mrr = values_of(found, TASK_LABELS[GENRE])
    assert list(mrr) == [GENRE + ONLY_SUFFIX, SHARED, OVERALL, USER, RECENT_USER]
    assert mrr[SHARED] > 0.9
    assert mrr[GENRE + ONLY_SUFFIX] > 0.9
    assert mrr[OVERALL] < 0.6  # with four equally frequent genres, at most (1 + 1/2 + 1/3 + 1/4) / 4
    assert found["panels"][TASK_LABELS[GENRE]]["gain"][OVERALL]["all"]["low"] > 0.3


@pytest.mark.learned
def test_head_predicts_crossed_tastes_and_frequencies_do_not(found: dict[str, Any]) -> None:
    auc = found["panels"][LIKED_OR_NOT]["auc"]
    assert list(auc) == [ACTION + ONLY_SUFFIX, SHARED, *FREQUENCY_BASELINES]
    assert auc[SHARED] > 0.9
    assert auc[ACTION + ONLY_SUFFIX] > 0.9
    for variant in (OVERALL, USER, TITLE_FREQUENCIES, USER_AND_TITLE):  # half of the events are liked in each
        assert auc[variant] < 0.65
    accuracy = values_of(found, LIKED_OR_NOT)
    assert accuracy[SHARED] > 0.8
    assert found["panels"][LIKED_OR_NOT]["gain"][USER]["all"]["low"] > 0.2


def test_report_is_consistent(found: dict[str, Any], tmp_path: Path) -> None:
    assert list(found["panels"]) == [
        NEXT_TITLE_LISTS,
        NEXT_TITLE_BACKBONE,
        TASK_LABELS[ACTION],
        TASK_LABELS[GENRE],
        LIKED_OR_NOT,
    ]
    assert found["classes"] == {ACTION: 2, GENRE: 4}
    assert (
        list(values_of(found, NEXT_TITLE_LISTS)) == list(values_of(found, NEXT_TITLE_BACKBONE)) == [TITLE_ONLY, SHARED]
    )
    for panel in found["panels"].values():
        mrr, gain = panel["values"], panel["gain"][panel["dedicated"]]["all"]
        assert panel["events"]["all"] == found["scored"] == 512
        assert gain["mean"] == pytest.approx(mrr[SHARED]["all"] - mrr[panel["dedicated"]]["all"])
    write(found, tmp_path / "multitask.json")
    assert json.loads((tmp_path / "multitask.json").read_text())["panels"] == found["panels"]


@pytest.mark.parametrize(
    ("low", "high", "users", "expected"),
    [
        (0.1, 0.3, 30, BETTER),
        (-0.3, -0.1, 30, WORSE),
        (-0.1, 0.3, 30, INCONCLUSIVE),
        (0.1, 0.3, MIN_USERS - 1, INCONCLUSIVE),
    ],
)
def test_verdicts_follow_from_intervals(low: float, high: float, users: int, expected: str) -> None:
    verdicts = multitask.verdicts(gain_panel(low, high, users))
    assert verdicts == {"sharing": expected, "best_baseline": USER, "against_baseline": expected}


def test_auc_is_the_share_of_ordered_pairs() -> None:
    random = np.random.default_rng(0)
    score_N, truth_N = random.integers(0, 9, 50) / 9, random.random(50) < 0.4
    gap = score_N[truth_N][:, None] - score_N[~truth_N]
    assert multitask.auc(score_N, truth_N) == pytest.approx(((gap > 0) + 0.5 * (gap == 0)).mean())
    assert multitask.auc(score_N, np.ones(50, bool)) is None


def test_tasks_without_two_classes_are_left_out() -> None:
    clicks = dataset_of([(n % 5, (n * 7) % 13, START_S + 600 * n) for n in range(60)])
    found = multitask.report(clicks, no_text, SETTINGS, SILENT)
    assert (found["classes"], found["panels"]) == ({}, {})
    assert found["left_out"] == [multitask.LEFT_OUT[ACTION], multitask.LEFT_OUT[GENRE]]


def test_events_on_waiting_titles_are_left_out_of_the_tasks() -> None:
    evicting = replace(SETTINGS, stream_state=replace(SETTINGS.stream_state, max_titles=12))
    found = multitask.report(genre_cycle(240), by_genre, evicting, SILENT)
    panels = found["panels"]
    in_tasks = {panels[title]["events"]["all"] for title in (TASK_LABELS[ACTION], TASK_LABELS[GENRE], LIKED_OR_NOT)}
    assert len(in_tasks) == 1
    assert 0 < in_tasks.pop() < panels[NEXT_TITLE_LISTS]["events"]["all"] == found["scored"]
    assert 0 < panels[LIKED_OR_NOT]["auc"][SHARED] < 1


def test_command_runs_on_a_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(n % 5, (n * 7) % 13, START_S + 600 * n, ["play", "finish"][n % 2]) for n in range(60)]
    pd.DataFrame(rows, columns=["user", "item", "ts", "action"]).to_csv("e.csv", index=False)
    arguments = ["multitask", "--weight", "0.5", "--events", "e.csv", "--report", "r.json", "--figure", "f.png"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "the genre task is left out" in result.output
    found = json.loads(Path("r.json").read_text())
    assert list(found["panels"]) == [NEXT_TITLE_LISTS, NEXT_TITLE_BACKBONE, TASK_LABELS[ACTION], LIKED_OR_NOT]
    assert found["weight"] == 0.5
    assert {panel["verdicts"]["sharing"] for panel in found["panels"].values()} == {INCONCLUSIVE}  # five users
    assert image.imread("f.png").shape[0] > 300
