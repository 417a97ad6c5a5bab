"""The last skipped event of each user is remembered, in bounded memory."""

import numpy as np

from model.state.stream_state import History
from model.state.untrained_events import UntrainedEvents


def history(user: str, *times: int) -> History:
    return History(user, np.arange(len(times)), np.array(times, np.int64), np.zeros(len(times), np.int64))


def test_history_is_trained_from_behind_the_last_skipped_event() -> None:
    skipped = UntrainedEvents(10)
    skipped.add([history("a", 10, 20, 30), history("b", 5)], [[0, 1], []])
    assert skipped.first_trained(history("a", 10, 20, 30, 40)) == 2
    assert skipped.first_trained(history("b", 5, 6)) == 0
    skipped.add([history("a", 10, 15)], [[1]])  # late: an earlier event
    assert skipped.first_trained(history("a", 10, 15, 20, 30)) == 3


def test_oldest_users_are_dropped_beyond_the_limit() -> None:
    skipped = UntrainedEvents(3)
    for n in range(8):
        skipped.add([history(f"u{n}", 1)], [[0]])
    assert len(skipped) == 3
    assert skipped.first_trained(history("u4", 1, 2)) == 0
    assert skipped.first_trained(history("u7", 1, 2)) == 1


def test_state_and_erasure() -> None:
    skipped, restored = UntrainedEvents(10), UntrainedEvents(10)
    skipped.add([history("a", 1), history("b", 2)], [[0], [0]])
    skipped.erase_user("a")
    restored.load_state_dict(skipped.state_dict())
    assert restored.state_dict() == {"b": 2}
