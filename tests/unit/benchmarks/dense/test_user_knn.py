"""The dense user-kNN signals: the titles of the users who share a title with the query user, and no others."""

import numpy as np

from benchmarks.dense.fill import new_scratch
from benchmarks.dense.inputs import title_signals, user_query
from benchmarks.dense.user_knn import add_user_knn_signals
from model.settings import StreamStateSettings
from model.signals.table import Summed
from model.state.stream_state import History, StreamState, TitleMetadata


def test_titles_of_similar_users_get_signals() -> None:
    state = StreamState(StreamStateSettings())
    state.launch(TitleMetadata(f"t{n}", np.zeros(0, np.float32), [], None, None, False) for n in range(6))
    for user, rows in {"similar": (0, 1, 2), "other": (3, 4)}.items():
        for row in rows:
            state.user_store.add(user, row)
    titles, one = title_signals(state), np.ones(1, np.int64)
    scratch = new_scratch(len(state.catalog), len(titles.interactions.user_count_U))
    add_user_knn_signals(user_query(state, History("new", one, one, one), 1), titles, scratch)
    after, before = (scratch.summed_VF[:, f] for f in (Summed.NEIGHBOR_AFTER, Summed.NEIGHBOR_BEFORE))
    assert (after > 0).nonzero()[0].tolist() == [2]
    assert (before > 0).nonzero()[0].tolist() == [0]
    assert (scratch.summed_VF[:, Summed.KNN_USERS] > 0).nonzero()[0].tolist() == [0, 1, 2]
