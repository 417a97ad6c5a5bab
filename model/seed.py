"""Starts a learner on another log with the weights of a checkpoint."""

import numpy as np

from model.learner import Learner
from model.sequence.experience_replay import ReplayBuffer
from model.state.stream_state import StreamState
from model.state.title_cells import TitleCells
from model.state.untrained_events import UntrainedEvents


def keep_weights_only(learner: Learner) -> None:
    """Drop everything that belongs to titles and users: counters, histories, embeddings of ids, windows to replay.

    The titles of another log would be candidates here, although nobody launched them on this log. What remains are the
    weights of the networks, the optimizer's state, and the ranker's recent examples, which contain no ids.
    """
    rows = np.arange(len(learner.stream_state.catalog))
    for pipeline in learner.pipelines.values():
        if pipeline.sequence is not None:
            pipeline.sequence.evict_titles(rows)
            pipeline.sequence.cells = TitleCells(pipeline.sequence.seed)
            pipeline.sequence.replay_buffer = ReplayBuffer(
                pipeline.sequence.settings.replay_capacity, pipeline.sequence.settings.network.max_history
            )
    text_space = learner.stream_state.text_space
    learner.stream_state = StreamState(learner.settings.stream_state)
    learner.stream_state.text_space = text_space
    learner.untrained = UntrainedEvents(learner.settings.stream_state.max_users)
