"""Invalid records and records of a recreated topic in the learner log."""

from dataclasses import replace

import torch
from msgspec import structs

from model.learner import Learner
from streaming.kafka.source import Message
from streaming.records import Activity, NewEvent, Tick, Title, UserErasure, decode_log
from streaming.state.log_learner import UNDECODABLE_RECORDS, LogLearner
from streaming.state.log_settings import LogSettings
from tests.support.learner import D_TEXT, SETTINGS, SMALL_STATE, LogBuilder, activity, find_in_state

torch.set_num_threads(1)


def new() -> LogLearner:
    state = replace(SMALL_STATE, min_users_before_launch=1)  # these tests launch no titles
    return LogLearner(Learner(replace(SETTINGS, stream_state=state)), LogSettings(max_batch_records=6))


def test_invalid_record_is_counted_and_skipped() -> None:
    log, learner = LogBuilder(), new()
    before = UNDECODABLE_RECORDS._value.get()
    log.write(activity(0))
    log.messages.append(Message("activity", 0, 1, log.record_time, None, b"\xc1 no record"))
    log.messages.append(Message("activity", 0, 2, log.record_time, None, None))
    log.write(Tick(ts=0), 1_000)
    for message in log.messages:
        learner.feed(message)
    assert UNDECODABLE_RECORDS._value.get() == before + 2
    assert (learner.learned, learner.position) == (1, 4)


def test_record_that_contradicts_itself_is_counted_and_skipped() -> None:
    log, learner = LogBuilder(), new()
    before = UNDECODABLE_RECORDS._value.get()
    log.launch()
    valid = decode_log(log.messages[0].value or b"")
    invalid: list[Activity | Title] = [
        structs.replace(activity(1), new=[NewEvent(1, 0, 1, 0)]),
        structs.replace(activity(1), actions=[99]),
        structs.replace(activity(1), times=[]),
    ]
    assert isinstance(valid, Title)
    invalid.append(structs.replace(valid, semantic=bytes(4 * D_TEXT + 1)))
    for record in (*invalid, activity(1)):
        log.write(record)
    log.write(Tick(ts=0), 1_000)
    for message in log.messages:
        learner.feed(message)
    assert UNDECODABLE_RECORDS._value.get() == before + len(invalid)
    assert (learner.learned, learner.position) == (1, len(log.messages))


def test_events_and_erasures_of_a_recreated_topic_are_no_duplicates() -> None:
    log, learner, user = LogBuilder(), new(), "u300"
    events = [activity(*range(9), user=user), activity(*range(10, 30), user=user)]
    erasure = UserErasure(user=user, partition=0, offset=9, appended=0)
    for source in ("topic-1", "topic-2"):
        before, after = (structs.replace(one, source=source) for one in events)
        has_user = []
        for record in (before, Tick(ts=0), structs.replace(erasure, source=source), Tick(ts=0), after, Tick(ts=0)):
            log.write(record, later=600)
            learner.feed(log.messages[-1])
            has_user.append(bool(find_in_state(learner.evaluation.baselines.state_dict(), user)))
        assert has_user[1:4:2] == [True, False]
    assert (learner.learned, learner.duplicates) == (2 * 29, 0)
    for message in log.messages[:6]:
        log.write(decode_log(message.value or b""), later=600)
        learner.feed(log.messages[-1])
    assert (learner.learned, learner.duplicates) == (2 * 29, 29)
    assert find_in_state(learner.evaluation.baselines.state_dict(), user)  # the request was not repeated
