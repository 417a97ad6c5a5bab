"""Auxiliary tasks: their loss, exact resume, and a model that they leave unchanged at weight 0."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from model import checkpoint
from model.actions import ACTIONS
from model.learner import Learner
from model.sequence.model import SequenceModel
from model.sequence.tasks import ACTION, GENRE, LIKED, TASKS, TaskHead
from model.settings import LearnerSettings
from tests.support.learner import SEQUENCE, SETTINGS, RandomStream, state_differences

torch.set_num_threads(1)

HIGH, LOW = ACTIONS["rated high"].code, ACTIONS["rated low"].code


def test_liked_actions_are_finish_like_purchase_and_high_rating() -> None:
    liked = {name for name, action in ACTIONS.items() if LIKED[action.code]}
    assert liked == {"finish", "like", "purchase", "rated high"}


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
    return replace(SETTINGS, sequence=replace(SEQUENCE, network=network, objective=objective))


def train(settings: LearnerSettings, batches: int = 8) -> tuple[Learner, list[Any]]:
    """A learner trained on some batches, and its losses."""
    learner = Learner(settings)
    return learner, [learner.observe(batch).losses for batch in RandomStream(2).batches(batches)]


def test_zero_task_weight_changes_nothing() -> None:
    plain, losses = train(SETTINGS)
    weightless, other = train(settings_with_tasks(0.0))
    assert state_differences(losses, other) == []
    one, two = (learner.served_pipeline.sequence for learner in (plain, weightless))
    assert one is not None
    assert two is not None
    shared = {name: value for name, value in two.network.state_dict().items() if not name.startswith("task_heads.")}
    assert len(shared) == len(two.network.state_dict()) - 4  # a matrix and a vector a head
    assert state_differences(dict(one.network.state_dict()), shared) == []
    assert state_differences(one.optimizers.rows.state_dict(), two.optimizers.rows.state_dict()) == []
    weighed, _ = train(settings_with_tasks(1.0))
    assert state_differences(plain.stream_state.state_dict(), weighed.stream_state.state_dict()) == []
    three = weighed.served_pipeline.sequence
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
    sequence = resumed.served_pipeline.sequence
    assert sequence is not None
    assert sequence.served.task_head(GENRE).classes.weight.any()
    server = SequenceModel(sequence.settings)  # loads the served state only
    server.load_served(sequence.served_state(len(resumed.stream_state.catalog)))
    assert state_differences(dict(server.served.state_dict()), dict(sequence.served.state_dict())) == []
