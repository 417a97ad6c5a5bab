"""Several tasks on one backbone: results known by construction, and a model without tasks stays unchanged."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import image
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from infra.cli.main import app
from infra.experiments import multitask, multitask_report
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
from model import checkpoint
from model.actions import ACTIONS
from model.learner import Learner, LearnerSettings
from model.sequence.model import SequenceModel
from model.sequence.tasks import ACTION, GENRE, TASKS, TaskHead
from tests.support.evaluation import GENRES, SETTINGS, START_S, dataset_of, genre_cycle, no_log, no_text
from tests.support.learner import D_TEXT, SEQUENCE, RandomStream, state_differences
from tests.support.learner import SETTINGS as SMALL

HIGH, LOW = ACTIONS["rated high"].code, ACTIONS["rated low"].code


def by_genre(texts: Any) -> Any:
    """An encoder with one dimension per genre."""
    vectors = np.zeros((len(texts), D_TEXT), np.float32)
    for row, text in enumerate(texts):
        vectors[row, next(k for k, genre in enumerate(GENRES) if genre in text)] = 1
    return vectors


def with_more_training(settings: LearnerSettings) -> LearnerSettings:
    """The same settings with more and larger training steps, to learn from few events."""
    s = settings.sequence
    return replace(settings, sequence=replace(s, steps=5, replay_windows=8, optim=replace(s.optim, lr=1e-2)))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return multitask.report(genre_cycle(640), by_genre, with_more_training(SETTINGS), no_log)


def values_of(found: dict[str, Any], panel: str) -> dict[str, float]:
    return {name: by_part["all"] for name, by_part in found["panels"][panel]["values"].items()}


def test_backbone_predicts_genre_cycle_and_frequencies_do_not(found: dict[str, Any]) -> None:
    mrr = values_of(found, TASK_LABELS[GENRE])
    assert list(mrr) == [GENRE + ONLY_SUFFIX, SHARED, OVERALL, USER, RECENT_USER]
    assert mrr[SHARED] > 0.9
    assert mrr[GENRE + ONLY_SUFFIX] > 0.9
    assert mrr[OVERALL] < 0.6  # of four that are as frequent (1 + 1/2 + 1/3 + 1/4) / 4 can be had
    assert found["panels"][TASK_LABELS[GENRE]]["gain"][OVERALL]["all"]["low"] > 0.3


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


def test_report_is_consistent_readable_and_drawable(found: dict[str, Any], tmp_path: Path) -> None:
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
    text = "\n".join(multitask_report.lines(found))
    assert f"{values_of(found, TASK_LABELS[GENRE])[SHARED]:.4f}" in text
    assert "classes: 2 of action, 4 of genre" in text
    multitask_report.draw(found, tmp_path / "multitask.png")
    assert len(np.unique(image.imread(tmp_path / "multitask.png").reshape(-1, 4), axis=0)) > 20


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
    gain = {"mean": (low + high) / 2, "low": low, "high": high, "events": 99, "users": users}
    only = GENRE + ONLY_SUFFIX
    gains = {name: {"all": gain, "new_titles": None, "new_users": gain} for name in (only, USER, OVERALL)}
    values = {SHARED: {"all": 0.6}, USER: {"all": 0.5}, OVERALL: {"all": 0.4}}
    panel = {"dedicated": only, "metric": "MRR", "values": values, "gain": gains}
    verdicts = multitask.verdicts(panel)
    assert verdicts == {"sharing": expected, "best_baseline": USER, "against_baseline": expected}
    sentences = list(multitask_report.conclusions({"panels": {"panel": panel | {"verdicts": verdicts}}}))
    assert f"{(low + high) / 2:+.4f} [{low:+.4f}, {high:+.4f}]" in sentences[0]
    assert expected in sentences[2]


def test_auc_is_the_share_of_ordered_pairs() -> None:
    random = np.random.default_rng(0)
    score_N, truth_N = random.integers(0, 9, 50) / 9, random.random(50) < 0.4
    gap = score_N[truth_N][:, None] - score_N[~truth_N]
    assert multitask.auc(score_N, truth_N) == pytest.approx(((gap > 0) + 0.5 * (gap == 0)).mean())
    assert multitask.auc(score_N, np.ones(50, bool)) is None


def test_task_head_loss_is_mean_over_true_classes() -> None:
    hidden_ND, title_ND = torch.randn(3, 6), torch.randn(3, 6)
    action_N, genres_NG = (
        torch.tensor([HIGH, LOW, HIGH]),
        torch.tensor([[5, 9, -1], [63, -1, -1], [-1, -1, -1]]).to(torch.int8),
    )
    for name, truth in ((ACTION, [[HIGH], [LOW], [HIGH]]), (GENRE, [[5, 9], [63], []])):
        head = TaskHead(TASKS[name], 6)
        torch.nn.init.normal_(head.classes.weight)
        logit_NK = head(hidden_ND, title_ND)
        wanted = [
            torch.stack([cross_entropy(logit_K, torch.tensor(k)) for k in true]).mean() if true else torch.tensor(0.0)
            for logit_K, true in zip(logit_NK, truth, strict=True)
        ]
        torch.testing.assert_close(head.losses(hidden_ND, title_ND, action_N, genres_NG), torch.stack(wanted))
    assert torch.equal(
        TaskHead(TASKS[GENRE], 6)(hidden_ND, title_ND), TaskHead(TASKS[GENRE], 6)(hidden_ND, title_ND * 2)
    )


def settings_with_tasks(weight: float, title: float = 1.0) -> LearnerSettings:
    """Small settings with both tasks."""
    objective = replace(SEQUENCE.objective, task_weight=weight, title_weight=title)
    network = replace(SEQUENCE.network, tasks=(ACTION, GENRE))
    return replace(SMALL, sequence=replace(SEQUENCE, network=network, objective=objective))


def train(settings: LearnerSettings, batches: int = 8) -> tuple[Learner, list[Any]]:
    """A learner trained on some batches, and its losses."""
    learner = Learner(settings)
    return learner, [learner.observe(batch).losses for batch in RandomStream(2).batches(batches)]


def test_zero_task_weight_changes_nothing() -> None:
    plain, losses = train(SMALL)
    weightless, other = train(settings_with_tasks(0.0))
    assert state_differences(losses, other) == []
    one, two = (learner.pipelines["full"].sequence for learner in (plain, weightless))
    assert one is not None
    assert two is not None
    shared = {name: value for name, value in two.network.state_dict().items() if not name.startswith("task_heads.")}
    assert len(shared) == len(two.network.state_dict()) - 4  # a matrix and a vector a head
    assert state_differences(dict(one.network.state_dict()), shared) == []
    assert state_differences(one.optimizers.rows.state_dict(), two.optimizers.rows.state_dict()) == []
    weighed, _ = train(settings_with_tasks(1.0))
    assert state_differences(plain.stream_state.state_dict(), weighed.stream_state.state_dict()) == []
    three = weighed.pipelines["full"].sequence
    assert three is not None
    assert not torch.equal(
        one.network.backbone.state_dict().popitem()[1], three.network.backbone.state_dict().popitem()[1]
    )


def test_learner_with_tasks_resumes_exactly(tmp_path: Path) -> None:
    batches = RandomStream(2).batches(10)
    learner = Learner(settings_with_tasks(1.0, title=0.0))
    for batch in batches[:6]:
        learner.observe(batch)
    checkpoint.save(str(tmp_path / "c"), learner.state_dict(), {})
    resumed = Learner(settings_with_tasks(1.0, title=0.0))
    resumed.load_state_dict(checkpoint.load(str(tmp_path / "c"))[0])
    for batch in batches[6:]:
        assert state_differences(learner.observe(batch), resumed.observe(batch)) == []
    assert state_differences(learner.state_dict(), resumed.state_dict()) == []
    sequence = resumed.pipelines["full"].sequence
    assert sequence is not None
    assert sequence.served.task_head(GENRE).classes.weight.any()
    server = SequenceModel(sequence.settings)  # loads the served state only
    server.load_served(sequence.served_state(len(resumed.stream_state.catalog)))
    assert state_differences(dict(server.served.state_dict()), dict(sequence.served.state_dict())) == []


def test_tasks_without_two_classes_are_left_out(tmp_path: Path) -> None:
    clicks = dataset_of([(n % 5, (n * 7) % 13, START_S + 600 * n) for n in range(60)])
    found = multitask.report(clicks, no_text, SETTINGS, no_log)
    assert (found["classes"], found["panels"]) == ({}, {})
    text = "\n".join(multitask_report.lines(found))
    assert "the action task is left out" in text
    assert "the genre task is left out" in text
    assert "no further task" in text
    multitask_report.draw(found, tmp_path / "none.png")
    assert image.imread(tmp_path / "none.png").shape[0] > 100


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
