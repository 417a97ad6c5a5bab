"""A release with another signal keeps everything of a checkpoint but the ranker, which starts again."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from model.learner import Learner
from model.pipeline import new_pipeline
from model.recommender import Recommender
from model.signals.table import DENSE_SIGNALS, SIGNALS
from streaming.state.log_learner import LogLearner, restarted
from tests.support.learn_in_memory import LOG_SETTINGS
from tests.support.learner import SETTINGS, LogBuilder, state_differences

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    for message in LogBuilder(seed=5).add_rounds(40).messages:
        learner.feed(message)
    assert learner.gate.last_good is not None
    return learner.state_dict()


def with_ranker(state: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The state with a changed ranker, in the served and the training part, and the gate's names."""
    served, training = state["served"]["full"], state["training"]["pipelines"]["full"]
    return {
        **state,
        "served": {"full": {**served, "ranker": change(served["ranker"])}},
        "training": {
            **state["training"],
            "pipelines": {"full": {**training, "ranker": change(training["ranker"])}},
        },
        "log": {**state["log"], "gate": {**state["log"]["gate"], **change({"signals": list(SIGNALS)})}},
    }


def one_signal_less(ranker: dict[str, Any]) -> dict[str, Any]:
    """The ranker as a release without the first signal wrote it."""
    changed: dict[str, Any] = {**ranker, "signals": ranker["signals"][1:]}
    for name in ("mean_F", "square_F", "linear_F"):
        changed |= {name: ranker[name][1:]} if name in ranker else {}
    for name in ("served_network", "training_network"):
        if name in ranker:
            changed[name] = {**ranker[name], "0.weight": ranker[name]["0.weight"][:, 1:]}
    if "signals_NCF" in ranker:
        changed["signals_NCF"] = ranker["signals_NCF"][..., 1:]
    return changed


def other_order(ranker: dict[str, Any]) -> dict[str, Any]:
    """The ranker of a release with the same signals in another order: all shapes fit."""
    return {**ranker, "signals": ranker["signals"][::-1]}


@pytest.mark.parametrize("change", [one_signal_less, other_order])
def test_only_the_ranker_starts_again(
    trained: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    resumed = restarted(with_ranker(trained, change), SETTINGS, LOG_SETTINGS)
    state, fresh = resumed.state_dict(), new_pipeline(SETTINGS).ranker
    differences = state_differences(trained, state)
    assert differences
    assert [line for line in differences if "/ranker" not in line and "/gate" not in line] == []
    assert state_differences(state["served"]["full"]["ranker"], fresh.served_state()) == []
    assert state_differences(state["training"]["pipelines"]["full"]["ranker"], fresh.training_state()) == []
    assert resumed.gate.last_good is None  # a return would restart the ranker once more


def test_ranker_that_started_again_learns(trained: dict[str, Any]) -> None:
    resumed, log = restarted(with_ranker(trained, one_signal_less), SETTINGS, LOG_SETTINGS), LogBuilder(seed=5)
    for message in log.add_rounds(60).messages[resumed.position :]:
        resumed.feed(message)
    ranker = resumed.learner.served_pipeline.ranker
    assert ranker.steps > 0
    assert ranker.is_finite()


def test_same_signals_change_nothing(trained: dict[str, Any]) -> None:
    assert state_differences(restarted(trained, SETTINGS, LOG_SETTINGS).state_dict(), trained) == []


def test_version_of_another_release_is_served_with_the_initial_ranker(trained: dict[str, Any]) -> None:
    served = with_ranker(trained, one_signal_less)
    version = Recommender.from_state(served, SETTINGS)
    assert version.pipeline.ranker.steps == 0
    assert np.isfinite(version.pipeline.ranker.linear_weights_F).all()
    assert len(version.pipeline.ranker.linear_weights_F) == len(DENSE_SIGNALS)
