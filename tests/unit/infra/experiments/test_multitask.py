"""Several tasks on one backbone: answers that are known by construction, and a model without tasks that stays as it
was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import image
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from infra.cli.main import app
from infra.data.datasets import DataSet, from_tables
from infra.data.tables import Table
from infra.errors import SettingsError
from infra.experiments import coldstart, compare, harness, multitask, scaling, staleness
from infra.experiments.evaluate import write
from infra.experiments.harness import stream
from infra.experiments.multitask import BACKBONE, LIKE, LISTS, ONLY, SHARED, TITLE, WORDS
from infra.experiments.task_evaluators import BOTH, FREQUENT, LIKING, RECENT, SIMPLE, VIEWER, class_rank, simple
from infra.experiments.task_evaluators import TITLE as TITLES_OWN
from model import checkpoint
from model.actions import ACTIONS, WEIGHTS
from model.learner import Learner, LearnerSettings
from model.metrics.ranking import average_rank
from model.sequence.model import SequenceModel
from model.sequence.tasks import ACTION, GENRE, LIKED, TASKS, Head
from tests.support.evaluation import SETTINGS, START, data_of, no_text
from tests.support.learner import D_TEXT, SEQUENCE, Stream, differences
from tests.support.learner import SETTINGS as SMALL

CYCLE: Final = ("Crime", "Comedy", "Horror", "Western")
HIGH, LOW = ACTIONS["rated high"].code, ACTIONS["rated low"].code


def cycle(events: int, users: int = 16, titles: int = 80) -> DataSet:
    """Each user goes through the genres in turn; even users like half of them, odd users the other half."""
    random = np.random.default_rng(4)
    left = {user: [random.permutation(np.arange(of, titles, 4)).tolist() for of in range(4)] for user in range(users)}
    rows = []
    for n in range(events):
        user, turn = n % users, n // users + (n % users) // 2
        liked = (turn % 4 < 2) == (user % 2 == 0)
        rows.append((user, left[user][turn % 4].pop(), START + 600 * n, 4.5 if liked else 1.0))
    described = [{"item": item, "title": f"t{item}", "genres": CYCLE[item % 4]} for item in range(titles)]
    events_table = Table("events", pd.DataFrame(rows, columns=["user", "item", "ts", "rating"]))
    return from_tables(events_table, Table("titles", pd.DataFrame(described)), name="made up", simulated=True)


def quiet(_line: str) -> None:
    """Progress that nobody reads."""


def by_genre(texts: Any) -> Any:
    """A direction a genre."""
    vectors = np.zeros((len(texts), D_TEXT), np.float32)
    for row, text in enumerate(texts):
        vectors[row, next(k for k, genre in enumerate(CYCLE) if genre in text)] = 1
    return vectors


def quick(settings: LearnerSettings) -> LearnerSettings:
    """It learns enough from few events."""
    s = settings.sequence
    return replace(settings, sequence=replace(s, steps=5, replayed=8, optim=replace(s.optim, lr=1e-2)))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return multitask.report(cycle(640), by_genre, quick(SETTINGS), quiet)


def of_all(found: dict[str, Any], panel: str) -> dict[str, float]:
    return {name: by_part["all"] for name, by_part in found["panels"][panel]["found"].items()}


def test_genres_in_turn_are_foreseen_by_a_backbone_and_by_no_frequency(found: dict[str, Any]) -> None:
    mrr = of_all(found, WORDS[GENRE])
    assert list(mrr) == [GENRE + ONLY, SHARED, FREQUENT, VIEWER, RECENT]
    assert mrr[SHARED] > 0.9
    assert mrr[GENRE + ONLY] > 0.9
    assert mrr[FREQUENT] < 0.6  # of four that are as frequent (1 + 1/2 + 1/3 + 1/4) / 4 can be had
    assert found["panels"][WORDS[GENRE]]["gain"][FREQUENT]["all"]["low"] > 0.3


def test_tastes_that_cross_are_separated_by_a_head_and_by_no_frequency(found: dict[str, Any]) -> None:
    auc = found["panels"][LIKE]["auc"]
    assert list(auc) == [ACTION + ONLY, SHARED, *SIMPLE]
    assert auc[SHARED] > 0.9
    assert auc[ACTION + ONLY] > 0.9
    for way in (FREQUENT, VIEWER, TITLES_OWN, BOTH):  # half of each viewer's events are liked, and half of each title's
        assert auc[way] < 0.65
    accuracy = of_all(found, LIKE)
    assert accuracy[SHARED] > 0.8
    assert found["panels"][LIKE]["gain"][VIEWER]["all"]["low"] > 0.2


def test_the_report_adds_up_and_can_be_read_and_seen(found: dict[str, Any], tmp_path: Path) -> None:
    assert list(found["panels"]) == [LISTS, BACKBONE, WORDS[ACTION], WORDS[GENRE], LIKE]
    assert found["classes"] == {ACTION: 2, GENRE: 4}
    assert list(of_all(found, LISTS)) == list(of_all(found, BACKBONE)) == [TITLE, SHARED]
    for panel in found["panels"].values():
        mrr, gain = panel["found"], panel["gain"][panel["own"]]["all"]
        assert panel["events"]["all"] == found["scored"] == 512
        assert gain["mean"] == pytest.approx(mrr[SHARED]["all"] - mrr[panel["own"]]["all"])
    write(found, tmp_path / "tasks.json")
    assert json.loads((tmp_path / "tasks.json").read_text())["panels"] == found["panels"]
    text = "\n".join(multitask.lines(found))
    assert f"{of_all(found, WORDS[GENRE])[SHARED]:.4f}" in text
    assert "classes: 2 of action, 4 of genre" in text
    multitask.draw(found, tmp_path / "tasks.png")
    assert len(np.unique(image.imread(tmp_path / "tasks.png").reshape(-1, 4), axis=0)) > 20


def test_the_verdict_is_the_intervals(found: dict[str, Any]) -> None:
    def of(low: float, high: float, users: int = 30) -> list[str]:
        gain = {"mean": (low + high) / 2, "low": low, "high": high, "events": 99, "users": users}
        gains = {rival: {"all": gain, "new_titles": None, "new_users": gain} for rival in (GENRE + ONLY, VIEWER)}
        panel = {"own": GENRE + ONLY, "measure": "MRR", "found": {SHARED: {"all": 0.6}, VIEWER: {"all": 0.5}}}
        return list(multitask.verdicts({"panels": {"p": panel | {"gain": gains}}}))

    better, part, beside = of(0.1, 0.3)
    assert better == "p: sharing helps: MRR +0.2000 [+0.1000, +0.3000] over 'genre only', 99 events of 30 users."
    assert part == "  new users +0.2000 [+0.1000, +0.3000]"
    assert "is better than 'the viewer's own', +0.2000" in beside
    assert of(-0.3, -0.1)[0].startswith("p: sharing hurts: MRR -0.2000")
    assert "is worse than" in of(-0.3, -0.1)[2]
    assert "no difference that these events can tell" in of(-0.1, 0.3)[0]
    assert "cannot be told apart" in of(-0.1, 0.3)[2]
    assert "too few users" in of(0.1, 0.3, users=9)[0]
    assert of(0.1, 0.3, users=9)[2].endswith("no verdict.")


def test_frequencies_are_those_before_the_event() -> None:
    data = cycle(96)
    way = simple(SETTINGS, FREQUENT, [ACTION, GENRE])
    recorded = stream(data, no_text, Learner(SETTINGS, {FREQUENT: way}), quiet, first=0)
    codes = [HIGH if data.event(k).rating == 4.5 else LOW for k in range(96)]
    counts, wanted, likely = np.full(len(WEIGHTS), 1e-6), [], []
    for code in codes:
        wanted.append(average_rank(counts, code))
        likely.append(counts[LIKED.numpy()].sum() / counts.sum())
        counts[code] += 1
    assert recorded.ranks[f"{FREQUENT}: {ACTION}"] == wanted
    assert recorded.ranks[FREQUENT + LIKING] == pytest.approx(likely)


def test_the_best_placed_of_several_true_classes_counts() -> None:
    likely_K = np.array([0.1, 0.4, 0.2, 0.2, 0.1])
    assert class_rank(likely_K, np.array([1, 0, 1, 0, 0], bool)) == 2.5  # the third, which ties with the fourth
    assert class_rank(likely_K, np.array([1, 1, 0, 0, 0], bool)) == 1
    assert class_rank(np.full(5, 0.2), np.array([1, 1, 0, 0, 0], bool)) == 2.5  # not beside the other true one
    assert np.isnan(class_rank(likely_K, np.zeros(5, bool)))


def test_the_area_is_how_often_a_pair_is_in_order() -> None:
    random = np.random.default_rng(0)
    score_N, truth_N = random.integers(0, 9, 50) / 9, random.random(50) < 0.4
    gap = score_N[truth_N][:, None] - score_N[~truth_N]
    assert multitask.area(score_N, truth_N) == pytest.approx(((gap > 0) + 0.5 * (gap == 0)).mean())
    assert multitask.area(score_N, np.ones(50, bool)) is None


def test_a_heads_loss_is_spread_over_the_true_classes_and_none_where_there_is_none() -> None:
    hidden_ND, title_ND = torch.randn(3, 6), torch.randn(3, 6)
    action_N, genres_NG = (
        torch.tensor([HIGH, LOW, HIGH]),
        torch.tensor([[5, 9, -1], [63, -1, -1], [-1, -1, -1]]).to(torch.int8),
    )
    for name, truth in ((ACTION, [[HIGH], [LOW], [HIGH]]), (GENRE, [[5, 9], [63], []])):
        head = Head(TASKS[name], 6)
        torch.nn.init.normal_(head.classes.weight)
        logit_NK = head(hidden_ND, title_ND)
        wanted = [
            torch.stack([cross_entropy(logit_K, torch.tensor(k)) for k in true]).mean() if true else torch.tensor(0.0)
            for logit_K, true in zip(logit_NK, truth, strict=True)
        ]
        torch.testing.assert_close(head.losses(hidden_ND, title_ND, action_N, genres_NG), torch.stack(wanted))
    assert torch.equal(Head(TASKS[GENRE], 6)(hidden_ND, title_ND), Head(TASKS[GENRE], 6)(hidden_ND, title_ND * 2))


def tasked(weight: float, title: float = 1.0) -> LearnerSettings:
    """The small learner with both tasks."""
    objective = replace(SEQUENCE.objective, task_weight=weight, title_weight=title)
    network = replace(SEQUENCE.network, tasks=(ACTION, GENRE))
    return replace(SMALL, sequence=replace(SEQUENCE, network=network, objective=objective))


def learned(settings: LearnerSettings, batches: int = 8) -> tuple[Learner, list[Any]]:
    """A learner after some of the stream, and its losses."""
    learner = Learner(settings)
    return learner, [learner.observe(batch).losses for batch in Stream(2).batches(batches)]


def test_without_tasks_nothing_differs_by_a_bit() -> None:
    plain, losses = learned(SMALL)
    weightless, other = learned(tasked(0.0))
    assert differences(losses, other) == []
    one, two = (learner.pipelines["full"].sequence for learner in (plain, weightless))
    assert one is not None
    assert two is not None
    shared = {name: value for name, value in two.network.state_dict().items() if not name.startswith("heads.")}
    assert len(shared) == len(two.network.state_dict()) - 4  # a matrix and a vector a head
    assert differences(dict(one.network.state_dict()), shared) == []
    assert differences(one.optimisers.rows.state_dict(), two.optimisers.rows.state_dict()) == []
    weighed, _ = learned(tasked(1.0))
    assert differences(plain.stream_state.state_dict(), weighed.stream_state.state_dict()) == []
    three = weighed.pipelines["full"].sequence
    assert three is not None
    assert not torch.equal(
        one.network.backbone.state_dict().popitem()[1], three.network.backbone.state_dict().popitem()[1]
    )


def test_a_learner_with_tasks_survives_a_restart_bit_for_bit(tmp_path: Path) -> None:
    batches = Stream(2).batches(10)
    learner = Learner(tasked(1.0, title=0.0))
    for batch in batches[:6]:
        learner.observe(batch)
    checkpoint.save(str(tmp_path / "c"), learner.state_dict(), {})
    again = Learner(tasked(1.0, title=0.0))
    again.load_state_dict(checkpoint.load(str(tmp_path / "c"))[0])
    for batch in batches[6:]:
        assert differences(learner.observe(batch), again.observe(batch)) == []
    assert differences(learner.state_dict(), again.state_dict()) == []
    sequence = again.pipelines["full"].sequence
    assert sequence is not None
    assert sequence.served.head(GENRE).classes.weight.any()
    server = SequenceModel(sequence.settings)  # reads what is served, and nothing of the training
    server.load_served(sequence.served_state(len(again.stream_state.catalog)))
    assert differences(dict(server.served.state_dict()), dict(sequence.served.state_dict())) == []


def test_where_nothing_is_scored_a_sentence_says_what_helps() -> None:
    plays = [("u", "t", START + 600 * n, ["play", "finish"][n % 2]) for n in range(20)]
    events = Table("events", pd.DataFrame(plays, columns=["user", "item", "ts", "action"]))
    data = from_tables(events, None, name="one viewer, one title")
    for study in (multitask, staleness, coldstart):
        with pytest.raises(SettingsError, match=r"^Nothing was scored: .* or --repeats where people come back"):
            study.report(data, no_text, SETTINGS, quiet)
    with pytest.raises(SettingsError, match="Nothing was scored"):
        compare.report(data, no_text, SETTINGS, ("as-set", "as-set"), quiet)
    with pytest.raises(SettingsError, match="Nothing was scored"):
        scaling.report(data, no_text, SETTINGS, quiet, ("4x1", "8x1", "12x1", "16x1", "20x1"), seeds=1)


def test_what_one_viewer_does_with_a_title_at_one_moment_stands_each_for_itself() -> None:
    done = [("u", "a", "finish"), ("u", "b", "play"), ("u", "a", "dislike"), ("u", "a", "play"), ("v", "a", "like")]
    events = pd.DataFrame([(*of, START) for of in done], columns=["user", "item", "action", "ts"])
    data = from_tables(Table("events", events), None, name="made up")
    back = replace(SETTINGS, repeats=True)
    for settings, actions in ((back, ["finish", "play", "play", "like"]), (SETTINGS, ["finish", "play", "like"])):
        recorded = stream(data, no_text, Learner(settings), quiet, first=0)
        assert harness.actions(data, recorded).tolist() == [ACTIONS[action].code for action in actions]


def test_what_the_data_do_not_tell_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    clicks = data_of([(n % 5, (n * 7) % 13, START + 600 * n) for n in range(60)])
    found = multitask.report(clicks, no_text, SETTINGS, quiet)
    assert (found["classes"], found["panels"]) == ({}, {})
    text = "\n".join(multitask.lines(found))
    assert "All events are of one action" in text
    assert "fewer than two genres" in text
    assert "nothing to share" in text
    multitask.draw(found, tmp_path / "none.png")
    assert image.imread(tmp_path / "none.png").shape[0] > 100


def test_the_command_runs_on_a_users_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(n % 5, (n * 7) % 13, START + 600 * n, ["play", "finish"][n % 2]) for n in range(60)]
    pd.DataFrame(rows, columns=["user", "item", "ts", "action"]).to_csv("e.csv", index=False)
    asked = ["tasks", "--weight", "0.5", "--events", "e.csv", "--report", "r.json", "--figure", "f.png"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert "the next title's genre is left out" in result.output
    assert "too few users" in result.output
    found = json.loads(Path("r.json").read_text())
    assert list(found["panels"]) == [LISTS, BACKBONE, WORDS[ACTION], LIKE]
    assert found["weight"] == 0.5
    assert image.imread("f.png").shape[0] > 300
