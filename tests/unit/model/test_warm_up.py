"""After the warm-up, learning and serving compile nothing more, and learning learns the same."""

import subprocess
import sys

import numpy as np
import torch

from model.learner import Learner
from model.warm_up import warm_up_learning
from tests.support.compiled_functions import compiled
from tests.support.learner import SETTINGS, RandomStream, state_differences
from tests.support.paths import ROOT


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


SERVING = """
from model.warm_up import warm_up_serving
from tests.support.compiled_functions import compiled
from tests.support.learner import SETTINGS, RandomStream
from model.learner import Learner
from model.recommender import Recommender, UserContext
from model.state.stream_state import UserUpdate
warm_up_serving(SETTINGS)
before = compiled()
learner, stream = Learner(SETTINGS), RandomStream(1)
for _ in range(6):
    learner.stream_state.launch(one for one in stream.batch() if not isinstance(one, UserUpdate))
version = Recommender(learner.stream_state, learner.served_pipeline)
for _ in range(3):
    batch = stream.batch()
    version.update_titles([one for one in batch if not isinstance(one, UserUpdate)])
    version.count_events([one for one in batch if isinstance(one, UserUpdate)])
    users = [UserContext(one.user, one.titles, one.times, one.actions, (), 5)
             for one in batch if isinstance(one, UserUpdate)]
    ranked = version.recommend(users, 10, 20, 2)
    version.score([ranked[0].titles[0][:1]] * len(users), users, ranked)
    version.select(ranked[0].titles[0], ranked[0].scores[0], 5, 1)
print({name: (before.get(name), after) for name, after in compiled().items() if before.get(name) != after})
"""


def test_serving_compiles_nothing_after_the_warm_up() -> None:
    done = subprocess.run([sys.executable, "-c", SERVING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"


def test_warm_up_does_not_change_what_is_learned() -> None:
    torch.manual_seed(3)
    wanted, after = learn(seed=2).state_dict(), torch.rand(1)
    torch.manual_seed(3)
    warm_up_learning(SETTINGS)
    assert state_differences(learn(seed=2).state_dict(), wanted) == []
    assert np.array_equal(torch.rand(1), after)
