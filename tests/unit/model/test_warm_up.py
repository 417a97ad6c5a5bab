"""After the warm-up, learning compiles nothing more and learns the same."""

import gc

import numpy as np
import torch
from numba.core.dispatcher import Dispatcher

from model.learner import Learner
from model.warm_up import warm_up_learning
from tests.support.learner import SETTINGS, RandomStream, state_differences


def compiled() -> dict[str, int]:
    """The number of compiled signatures of each function of ours."""
    found = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    own = [one for one in found if one.py_func.__module__.startswith("model.")]
    return {f"{one.py_func.__module__}.{one.py_func.__name__}": len(one.signatures) for one in own}


def learn(seed: int) -> Learner:
    learner, stream = Learner(SETTINGS), RandomStream(seed)
    for _ in range(12):
        learner.observe(stream.batch())
    return learner


def test_learning_compiles_nothing_after_the_warm_up() -> None:
    warm_up_learning(SETTINGS)
    before = compiled()
    assert sum(before.values()) > 5
    learn(seed=1)
    assert compiled() == before


def test_warm_up_does_not_change_what_is_learned() -> None:
    torch.manual_seed(3)
    wanted, after = learn(seed=2).state_dict(), torch.rand(1)
    torch.manual_seed(3)
    warm_up_learning(SETTINGS)
    assert state_differences(learn(seed=2).state_dict(), wanted) == []
    assert np.array_equal(torch.rand(1), after)
