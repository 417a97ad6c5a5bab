"""A change of live settings takes effect at a log offset, and reprocessing applies it at the same offset."""

from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.learner import Learner
from model.settings import LearnerSettings
from streaming.kafka.source import Message
from streaming.records import Version
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner, restarted
from streaming.state.log_settings import LogSettings
from streaming.state.recompute import recompute
from streaming.state.settings_history import settings_at
from tests.support.learn_in_memory import LOG_SETTINGS, run_learn
from tests.support.learner import SETTINGS, LogBuilder, state_differences

torch.set_num_threads(1)


def changed(model: LearnerSettings) -> LearnerSettings:
    """Other values of live settings of every kind: rates, replay, sampling, capacities."""
    sequence = replace(
        model.sequence,
        steps=2,
        replay_windows=2,
        replay_capacity=24,
        optim=replace(model.sequence.optim, lr=0.01),
        objective=replace(model.sequence.objective, negatives=8),
        network=replace(model.sequence.network, dropout=0.2),
    )
    ranker = replace(model.ranker, learning_rate=0.01, buffer_examples=40, visits_per_example=8.0, uniform_negatives=2)
    state = replace(model.stream_state, max_titles=25, max_users=8)
    return replace(model, sequence=sequence, ranker=ranker, stream_state=state, shortlist=8)


def run(messages: list[Message], folder: Path, settings: list[tuple[LearnerSettings, LogSettings]]) -> list[Version]:
    """Announced versions of a learner that is restarted from the newest checkpoint with each of the settings."""
    announced: list[Version] = []
    for n, (model, log) in enumerate(settings):
        learner = LogLearner(Learner(model), log)
        found = CheckpointStore(str(folder), log_identity="log").load_newest()
        if found is not None:
            learner.load_state_dict(found[0])
        end = len(messages) * (n + 1) // len(settings)
        announced += run_learn(messages[learner.position : end], folder, learner)[0]
    return announced


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_version_is_recomputed_across_changes_of_settings(tmp_path: Path, seed: int) -> None:
    messages = LogBuilder(seed=seed).add_rounds(60).messages
    second = changed(SETTINGS), replace(LOG_SETTINGS, min_batch_events=5, linger_ms=300)
    announced = run(messages, tmp_path, [(SETTINGS, LOG_SETTINGS), second, (SETTINGS, LOG_SETTINGS)])
    newest = announced[-1]
    assert len(newest.settings) == 3
    state, manifest = checkpoint.load(newest.path)
    assert manifest["settings_changes"][1]["values"]["optimizer.lr"] == 0.01
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    last = deque(recompute(learner, messages, newest), maxlen=1).pop()
    assert last.position == newest.position
    assert state_differences(as_saved(last, tmp_path), state) == []

    middle = next(version for version in announced if len(version.settings) == 2)
    start, _ = checkpoint.load(middle.path)
    learner = restarted(start, *settings_at(newest.settings, middle.position))
    last = deque(recompute(learner, messages[learner.position :], newest), maxlen=1).pop()
    assert state_differences(as_saved(last, tmp_path), state) == []


def as_saved(learner: LogLearner, folder: Path) -> dict[str, object]:
    """The learner's state as it is read from a checkpoint."""
    url = str(folder / "recomputed")
    checkpoint.save(url, learner.state_dict(), {})
    return checkpoint.load(url)[0]


def test_each_live_setting_may_change_and_a_restart_with_the_same_settings_changes_no_bit(tmp_path: Path) -> None:
    messages = LogBuilder(seed=4).add_rounds(40).messages
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    for message in messages[: len(messages) // 2]:
        learner.feed(message)
    same = restarted(learner.state_dict(), SETTINGS, LOG_SETTINGS)
    other = restarted(learner.state_dict(), changed(SETTINGS), LOG_SETTINGS)
    assert state_differences(same.state_dict(), learner.state_dict()) == []
    sequence = other.learner.served_pipeline.sequence
    assert sequence is not None
    assert [group["lr"] for group in sequence.optimizers.dense.adamw.param_groups] == [0.01, 0.01]
    assert other.learner.served_pipeline.ranker.optimizer.param_groups[0]["lr"] == 0.01
    assert len(other.learner.stream_state.user_store.user_indices) <= 8
    for message in messages[learner.position :]:
        other.feed(message)
    assert other.learned > learner.learned
