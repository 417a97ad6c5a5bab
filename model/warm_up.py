"""Compiles all code that learning or serving needs, by doing both with a few invented titles and users.

The first time on a machine this takes a minute; later the code comes from the cache. It changes no state: also the
random numbers of the process continue as if nothing had happened.

    python -m model.warm_up     fills the cache ahead of the first start, for example while an image is built
"""

from typing import Final

import numpy as np
import torch

from model.actions import ACTIONS, TARGET_WEIGHTS
from model.learner import Learner
from model.pipeline import new_pipeline
from model.recommender import Recommender, UserContext
from model.settings import LearnerSettings
from model.state.stream_state import StreamState, TitleMetadata, UserUpdate

ACTION: Final = max(ACTIONS.values(), key=lambda action: TARGET_WEIGHTS[action.code]).code  # one that is learned


def warm_up_learning(settings: LearnerSettings) -> None:
    """Compile the code of the flow `learn`."""
    with torch.random.fork_rng(devices=[]):
        learner = Learner(settings)
        learner.observe(_titles(settings))
        for start in (1, 1_000_000):  # the second batch has known users and windows to replay
            times = [start + n for n in range(3)]
            learner.observe([UserUpdate(user, ["0", "1", "2"], times, [ACTION] * 3, range(3), times) for user in "ab"])
        learner.erase_user("a")


def warm_up_serving(settings: LearnerSettings) -> None:
    """Compile the code of the flow `publish`."""
    with torch.random.fork_rng(devices=[]):
        stream_state = StreamState(settings.stream_state)
        stream_state.launch(_titles(settings))
        pipeline = new_pipeline(settings)
        pipeline.ranker.add_example(pipeline.ranker.signals_NCF[0], pipeline.ranker.log_correction_NC[0])
        pipeline.ranker.learn()  # an untrained ranker skips its network
        recommender = Recommender(stream_state, pipeline)
        recommender.update_titles(_titles(settings, 5))
        recommender.count_events([UserUpdate("a", ["0", "1"], [1, 2], [ACTION] * 2, [1], [1])])
        user = UserContext("any", ["0"], [0], [ACTION], (), 1)
        ranked = recommender.recommend([user], 1, new_title_slots=1)
        recommender.score([["1"]], [user], ranked)
        recommender.select(ranked[0].titles[0], ranked[0].scores[0], 2, 1)
        recommender.erase_user("a")


def _titles(settings: LearnerSettings, count: int = 4) -> list[TitleMetadata]:
    text_E = np.ones(settings.stream_state.d_text, np.float32)
    return [TitleMetadata(f"{n}", text_E, ["any"], 2000, 0, False) for n in range(count)]


if __name__ == "__main__":
    warm_up_learning(LearnerSettings())
    warm_up_serving(LearnerSettings())
