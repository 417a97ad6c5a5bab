"""The learner on its log: each event is learned once, and every checkpoint continues bit for bit."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from msgspec import structs

from model import checkpoint
from model.learner import Learner
from streaming.kafka.source import Message
from streaming.records import Activity, Tick, Title, UserErasure, decode_log, to_msgpack
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import LogSettings
from tests.support.learner import (
    PLAY,
    SETTINGS,
    SMALL_STATE,
    LogBuilder,
    activity,
    find_in_state,
    state_differences,
)

torch.set_num_threads(1)
LOGS: Final = LogSettings(
    min_batch_events=8,
    linger_ms=500,
    max_batch_records=6,
    capacity=20.0,
    checkpoint_ms=3_000,
    checkpoint_batches=7,
    dedup_window=64,
)


def new(settings: LogSettings = LOGS) -> LogLearner:
    return LogLearner(Learner(SETTINGS), settings)


def test_every_checkpoint_resumes_to_a_byte_identical_state(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(45)
    log.write(Tick(ts=0), later=1_000)
    straight, due, saved = new(), 0, []
    for message in log.messages:
        due += (now := straight.feed(message))
        waiting = straight.position <= message.offset  # records are pending and will be read again
        if (now and due in (1, 5)) or (waiting and message.offset in (60, 61, 100, 101)):
            saved.append(str(tmp_path / f"{message.offset:06d}"))
            checkpoint.save(saved[-1], straight.state_dict(), {"position": straight.position})
    assert straight.duplicates > 20
    assert straight.learned == len(log.events)
    assert len(saved) > 3
    stream_state = straight.learner.stream_state
    assert len(stream_state.catalog) + len(stream_state.catalog.free) > SMALL_STATE.max_titles
    assert len(stream_state.user_store.user_indices) == SMALL_STATE.max_users
    for url in saved:
        state, manifest = checkpoint.load(url)
        after = new()
        after.load_state_dict(state)
        assert after.position == manifest["position"]
        for message in log.messages[after.position :]:
            after.feed(message)
        assert state_differences(after.state_dict(), straight.state_dict()) == []
        assert after.losses == straight.losses


def test_duplicate_event_is_learned_once() -> None:
    log, with_duplicates = LogBuilder(seed=2), LogBuilder(seed=2)
    for one in (log, with_duplicates):
        for _ in range(5):
            one.launch()
        one.add_events(9)
        one.add_events(7)
    for event in with_duplicates.events[4:]:
        with_duplicates.write_events([event])
    with_duplicates.write_events(with_duplicates.events)
    learners = [new(replace(LOGS, linger_ms=10_000)) for _ in range(2)]
    for one, learner in zip((log, with_duplicates), learners, strict=True):
        for message in one.messages:
            learner.feed(message)
        learner.feed(Message("activity", 0, 10_000, one.record_time + 10**10, b"", tick()))
    assert [(learner.learned, learner.duplicates) for learner in learners] == [(16, 0), (16, 28)]
    stream_state = [learner.state_dict()["stream_state"] for learner in learners]
    assert state_differences(stream_state[0]["counters"], stream_state[1]["counters"]) == []
    assert state_differences(stream_state[0]["user_store"], stream_state[1]["user_store"]) == []


def tick() -> bytes:
    return to_msgpack(Tick(ts=0))


def test_micro_batch_closes_by_events_log_time_or_records() -> None:
    log, learner = LogBuilder(), new()
    steps = []

    def feed(record: Activity | Tick, later: int) -> None:
        log.write(record, later)
        learner.feed(log.messages[-1])
        steps.append((learner.batches, learner.position))

    feed(activity(0, 1, 2), 20)
    feed(activity(3, 4, 5), 20)
    feed(Tick(ts=0), 400)  # too short
    assert steps == [(0, 0)] * 3
    feed(Tick(ts=0), 80)
    assert steps[-1] == (1, 4)  # the tick itself is not pending
    feed(activity(*range(6, 12)), 20)
    feed(activity(12, 13), 20)
    assert steps[-2:] == [(1, 4), (2, 6)]
    feed(activity(14), 20)
    feed(activity(15), 600)  # closes the batch before it, and is pending itself
    assert steps[-2:] == [(2, 6), (3, 7)]
    for offset in range(5):
        feed(activity(offset), 20)  # duplicates: the sixth record closes the batch
    assert steps[-1] == (4, 13)
    assert (learner.learned, learner.duplicates) == (16, 5)


def test_checkpoint_is_due_by_log_time_or_batches_if_anything_was_learned() -> None:
    log, learner = LogBuilder(), new(replace(LOGS, min_batch_events=1))
    due = []

    def feed(record: Activity | Tick, later: int) -> None:
        log.write(record, later)
        due.append(learner.feed(log.messages[-1]))

    feed(Tick(ts=0), 20)
    feed(Tick(ts=0), 9_000)
    assert due == [False, False]
    feed(activity(0), 20)
    assert due[-1]
    feed(activity(1), 20)
    feed(Tick(ts=0), 2_900)
    feed(Tick(ts=0), 100)
    assert due[-3:] == [False, False, True]
    for offset in range(2, 9):
        feed(activity(offset), 20)
    assert due[-7:] == [False] * 6 + [True]
    feed(activity(8), 4_000)  # a duplicate
    assert not due[-1]


def test_on_another_log_weights_continue_and_position_restarts() -> None:
    log, learner, other = LogBuilder(seed=3).add_rounds(15), new(), new()
    for message in log.messages:
        learner.feed(message)
    state = learner.state_dict()
    other.load_state_dict(state, same_log=False)
    assert (other.position, other.learned, other.duplicates) == (0, 0, 0)
    kept = other.state_dict()
    assert state_differences(kept["stream_state"], new().state_dict()["stream_state"]) == []
    replayed = [one["training"]["pipelines"]["full"]["sequence"]["replay_buffer"] for one in (kept, state)]
    assert [bool(find_in_state(one, log.events[-1][0])) for one in replayed] == [False, True]
    served, given = kept["served"]["full"], state["served"]["full"]
    assert state_differences(served["ranker"], given["ranker"]) == []
    assert state_differences(served["sequence"]["served"], given["sequence"]["served"]) == []
    assert len(served["sequence"]["rows"]) == 0 < len(given["sequence"]["rows"])  # embeddings of ids
    fresh = LogBuilder(seed=3).add_rounds(4)
    for message in fresh.messages:
        other.feed(message)
    other.feed(Message("activity", 0, 10_000, fresh.record_time + 10**6, b"", tick()))
    assert other.learned == len(fresh.events)  # offsets learned on the other log are no duplicates here


def test_baselines_are_evaluated_on_the_same_events() -> None:
    log, learner = LogBuilder(seed=4).add_rounds(40), new()
    for message in log.messages:
        learner.feed(message)
    scored = [ranking.scored() for ranking in learner.evaluation.rankings.values()]
    assert list(learner.evaluation.rankings) == ["full", "popularity", "popularity_recent", "cooccurrence"]
    assert scored[0]["all"] > 100
    assert all(one == scored[0] for one in scored)
    assert (
        0 < learner.evaluation.unknown_title_events < scored[0]["all"]
    )  # titles that were not launched yet, or withdrawn


def test_relaunch_and_withdrawal_reach_model_and_baselines() -> None:
    log, learner = LogBuilder(), new(replace(LOGS, max_batch_records=1))
    title = Title(
        title="t", name="", genres=[], year=None, released=None, launched=0, stamp=0, withdrawn=False,
        semantic=np.ones(8, np.float32).tobytes(), appended=0, offset=0,
    )  # fmt: skip
    known = []
    for one in (title, structs.replace(title, withdrawn=True), structs.replace(title, semantic=b"")):
        log.write(one)
        learner.feed(log.messages[-1])
        candidate = bool(learner.learner.stream_state.catalog.candidate_V[0])
        known.append((candidate, learner.evaluation.baselines.rank("u", "t", 0)["popularity"] < math.inf))
    assert known == [(True, True), (False, False), (True, True)]
    assert not learner.learner.stream_state.catalog.semantic_VE[0].any()
    assert decode_log(log.messages[0].value or b"") == title


def test_waiting_title_has_no_row_in_the_baselines() -> None:
    log, learner = LogBuilder(), new(replace(LOGS, max_batch_records=1))
    log.launch()
    launched = decode_log(log.messages[0].value or b"")
    assert isinstance(launched, Title)
    for offset, user, title in ((1, "a", "invented"), (2, "a", launched.title), (3, "b", "invented")):
        log.write(structs.replace(activity(offset, user=user), titles=[title]))
    rows = []
    for message in log.messages:
        learner.feed(message)
        rows.append(learner.evaluation.baselines.title_events("invented"))
        assert find_in_state(learner.evaluation.baselines.state_dict(), "invented") == [] or rows[-1]
    assert learner.learned == 3
    assert rows == [0, 0, 0, 1]  # the second of two users admits the title, and that event is counted


def log_with_erasure(user: str = "u300") -> LogBuilder:
    """A log in which a user with a unique id has many events and is then erased."""
    log = LogBuilder(seed=5).add_rounds(20)
    for place in range(25):
        log.stream.now += 60_000
        log.stream.histories.setdefault(user, []).append((f"t{place % 11}", log.stream.now, PLAY))
        log.note_event(user, place)
        log.write_events(log.events[-1:])
        log.add_events(1)
    log.erase_user(user)
    return log


def test_erased_user_is_in_no_part_of_the_state() -> None:
    log, user = log_with_erasure(), "u300"
    learner = new(replace(LOGS, min_batch_events=5))
    before: list[str] = []
    for message in log.messages:
        if isinstance(decode_log(message.value or b""), UserErasure):
            stream_state = learner.learner.stream_state
            user_index = stream_state.user_store.user_index(user)
            before = find_in_state(learner.state_dict(), user)
            request = message.offset
        learner.feed(message)
        if before and learner.position > request:
            break
    assert user_index not in stream_state.user_store.interactions.title_users_VI
    for part in ("/stream_state/user_store/", "/log/evaluation/baselines/", "/training/"):
        assert any(path.startswith(part) for path in before)
    assert find_in_state(learner.state_dict(), user) == []


def test_erasure_is_reproducible_across_restarts(tmp_path: Path) -> None:
    log = log_with_erasure().add_rounds(8)
    log.erase_user("u2")
    log.add_rounds(5)
    log.erase_user("u2")  # again, and an unknown user
    log.erase_user("u999")
    log.add_rounds(3)
    log.write(Tick(ts=0), later=1_000)
    straight, saved = new(), []
    for message in log.messages:
        waiting = straight.position < message.offset
        straight.feed(message)
        is_erasure = isinstance(decode_log(message.value or b""), UserErasure)
        if is_erasure or (waiting and message.offset % 25 == 0):
            saved.append(str(tmp_path / f"{message.offset:06d}"))
            checkpoint.save(saved[-1], straight.state_dict(), {"position": straight.position})
    assert len(saved) > 6
    for url in saved:
        after = new()
        after.load_state_dict(checkpoint.load(url)[0])
        for message in log.messages[after.position :]:
            after.feed(message)
        assert state_differences(after.state_dict(), straight.state_dict()) == []


def test_duplicate_erasure_request_erases_once() -> None:
    log, learner = LogBuilder(), new(replace(LOGS, min_batch_events=1))
    learner.learner.stream_state.admission.min_users = 1  # titles are learned without a launch
    erasure = UserErasure(user="u", partition=0, offset=5, appended=0)
    for record in (activity(3, 4), erasure, activity(7), activity(3), erasure):
        log.write(record)
    for message in log.messages:
        learner.feed(message)
    assert learner.learner.stream_state.user_store.event_count("u") == 1
    assert (learner.learned, learner.duplicates) == (3, 1)
