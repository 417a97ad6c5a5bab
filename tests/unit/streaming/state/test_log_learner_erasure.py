"""Requests to erase users do not cut micro-batches, and take effect in the order of the log."""

from dataclasses import replace

import torch

from model.learner import Learner
from streaming.records import LogRecord, UserErasure
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import LogSettings
from tests.support.learner import LARGE_STATE, SETTINGS, LogBuilder, activity, state_differences

torch.set_num_threads(1)


def fed(*records: LogRecord) -> LogLearner:
    """A learner after these records, which learns titles without a launch."""
    state = replace(LARGE_STATE, min_users_before_launch=1)
    learner, log = (
        LogLearner(Learner(replace(SETTINGS, stream_state=state)), LogSettings(min_batch_events=6)),
        LogBuilder(),
    )
    for record in records:
        log.write(record)
        learner.feed(log.messages[-1])
    return learner


def erasure(user: str, offset: int) -> UserErasure:
    return UserErasure(user=user, partition=0, offset=offset, appended=0, source="requests")


def test_erasure_requests_cut_no_micro_batch() -> None:
    events = [activity(3 * n, 3 * n + 1, 3 * n + 2, user=user) for n, user in enumerate(("a", "b"))]
    requests = [erasure(f"user {n}", n) for n in range(10)]
    attacked, calm = fed(events[0], *requests, events[1]), fed(*events)
    assert (attacked.batches, attacked.learned) == (calm.batches, calm.learned) == (1, 6)
    for part in ("stream_state", "served", "training"):
        assert state_differences(attacked.state_dict()[part], calm.state_dict()[part]) == []


def test_events_before_an_erasure_in_a_micro_batch_are_erased_and_later_ones_are_kept() -> None:
    learner = fed(
        activity(0, 1, user="a"), erasure("a", 0), activity(2, user="a"), *(activity(n, user="b") for n in range(3, 8))
    )
    assert learner.batches == 2
    assert learner.learner.stream_state.user_store.event_count("a") == 1
    assert learner.learner.stream_state.user_store.event_count("b") == 5
