"""Records that a flow writes again after a crash change nothing, and each change of the state has a step of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.learner import Learner
from streaming.records import LogRecord, Title, UserErasure
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import LogSettings
from tests.support.learner import LARGE_STATE, SETTINGS, LogBuilder, activity, state_differences

torch.set_num_threads(1)


def new() -> LogLearner:
    state = replace(LARGE_STATE, min_users_before_launch=1)
    return LogLearner(Learner(replace(SETTINGS, stream_state=state)), LogSettings(max_batch_records=1))


def title(stamp: int, withdrawn: bool = False) -> Title:
    return Title(
        title="t3", name="", genres=[], year=None, released=None, launched=0, stamp=stamp, withdrawn=withdrawn,
        semantic=np.full(8, stamp, np.float32).tobytes(), appended=0, offset=0,
    )  # fmt: skip


@pytest.mark.parametrize("repeated", [[title(1)], [title(2, withdrawn=True)], [title(1), title(2, withdrawn=True)]])
def test_repeated_title_record_changes_nothing(repeated: list[Title]) -> None:
    once, again = new(), new()
    for learner, rest in ((once, []), (again, repeated)):
        log, records = LogBuilder(), list[LogRecord]([title(1), activity(3), title(2, withdrawn=True), *rest])
        for record in [*records, activity(4)]:
            log.write(record)
            learner.feed(log.messages[-1])
    catalog = again.learner.stream_state.catalog
    assert not catalog.candidate_V[catalog.rows["t3"]]
    for part in ("stream_state", "served", "training"):
        assert state_differences(again.state_dict()[part], once.state_dict()[part]) == []
    assert state_differences(again.evaluation.baselines.state_dict(), once.evaluation.baselines.state_dict()) == []


def test_newer_title_record_counts() -> None:
    log, learner = LogBuilder(), new()
    for record in (title(1), title(2, withdrawn=True), title(3)):
        log.write(record)
        learner.feed(log.messages[-1])
    catalog = learner.learner.stream_state.catalog
    assert catalog.candidate_V[catalog.rows["t3"]]
    assert (catalog.semantic_VE[catalog.rows["t3"]] == 3).all()


def test_erasure_between_micro_batches_is_a_step_of_its_own() -> None:
    log, learner = LogBuilder(), new()
    steps = []
    for record in (activity(1), UserErasure(user="u", partition=0, offset=5, appended=0), activity(7)):
        log.write(record)
        learner.feed(log.messages[-1])
        steps.append(learner.batches)
    assert steps == [1, 2, 3]
