"""The learner over its log: each event once, whatever the cuts and crashes, and no checkpoint loses anything."""

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
from streaming.records import Activity, Forgotten, Tick, Title, decode_log, to_msgpack
from streaming.state.log_learner import UNREADABLE, Deduplicator, LogLearner, LogSettings
from tests.support.learner import MEMORY, PLAY, SETTINGS, Log, activity, differences, holds

torch.set_num_threads(1)
LOGS: Final = LogSettings(
    batch=8, linger=500, titles=6, capacity=20.0, checkpoint=3_000, checkpoint_batches=7, window=64
)


def new(settings: LogSettings = LOGS) -> LogLearner:
    return LogLearner(Learner(SETTINGS), settings)


def test_from_any_checkpoint_on_disk_the_rest_of_the_log_gives_the_same_state_bit_for_bit(tmp_path: Path) -> None:
    log = Log(seed=1).play(45)
    log.write(Tick(ts=0), later=1_000)
    straight, due, saved = new(), 0, []
    for message in log.messages:
        due += (now := straight.feed(message))
        waiting = straight.position <= message.offset  # something is pending and will be read again
        if (now and due in (1, 5)) or (waiting and message.offset in (60, 61, 100, 101)):
            saved.append(str(tmp_path / f"{message.offset:06d}"))
            checkpoint.save(saved[-1], straight.state_dict(), {"position": straight.position})
    assert straight.duplicates > 20
    assert straight.learned == len(log.events)
    assert len(saved) > 3
    stream_state = straight.learner.stream_state
    assert len(stream_state.catalog) + len(stream_state.catalog.free) > MEMORY.most_titles
    assert len(stream_state.user_store.user_indices) == MEMORY.most_users
    for url in saved:
        state, manifest = checkpoint.load(url)
        after = new()
        after.load_state_dict(state)
        assert after.position == manifest["position"]
        for message in log.messages[after.position :]:
            after.feed(message)
        assert differences(after.state_dict(), straight.state_dict()) == []
        assert after.losses == straight.losses


def test_events_written_twice_and_cut_differently_are_learned_once() -> None:
    log, again = Log(seed=2), Log(seed=2)
    for one in (log, again):
        for _ in range(5):
            one.launch()
        one.happen(9)
        one.happen(7)
    for event in again.events[4:]:
        again.tell([event])
    again.tell(again.events)
    learners = [new(replace(LOGS, linger=10**9)) for _ in range(2)]
    for one, learner in zip((log, again), learners, strict=True):
        for message in one.messages:
            learner.feed(message)
        learner.feed(Message("activity", 0, 10_000, one.at + 10**10, b"", tick()))
    assert [(learner.learned, learner.duplicates) for learner in learners] == [(16, 0), (16, 28)]
    stream_state = [learner.state_dict()["stream_state"] for learner in learners]
    assert differences(stream_state[0]["counters"], stream_state[1]["counters"]) == []
    assert differences(stream_state[0]["audience"], stream_state[1]["audience"]) == []


def tick() -> bytes:
    return to_msgpack(Tick(ts=0))


def test_a_batch_closes_by_events_by_log_time_or_by_records() -> None:
    log, learner = Log(), new()
    steps = []

    def feed(record: Activity | Tick, later: int) -> None:
        log.write(record, later)
        learner.feed(log.messages[-1])
        steps.append((learner.learner.steps, learner.position))

    feed(activity(0, 1, 2), 20)
    feed(activity(3, 4, 5), 20)
    feed(Tick(ts=0), 400)  # not long enough
    assert steps == [(0, 0)] * 3
    feed(Tick(ts=0), 80)
    assert steps[-1] == (1, 4)  # the tick itself holds nothing back
    feed(activity(*range(6, 12)), 20)
    feed(activity(12, 13), 20)
    assert steps[-2:] == [(1, 4), (2, 6)]
    feed(activity(14), 20)
    feed(activity(15), 600)  # closes the one before it, and waits itself
    assert steps[-2:] == [(2, 6), (3, 7)]
    for offset in range(5):
        feed(activity(offset), 20)  # learned already: the sixth record without any event left closes it
    assert steps[-1] == (4, 13)
    assert (learner.learned, learner.duplicates) == (16, 5)


def test_what_cannot_be_read_is_counted_and_passed_over() -> None:
    log, learner = Log(), new()
    before = UNREADABLE._value.get()
    log.write(activity(0))
    log.messages.append(Message("activity", 0, 1, log.at, None, b"\xc1 no record"))
    log.messages.append(Message("activity", 0, 2, log.at, None, None))
    log.write(Tick(ts=0), 1_000)
    for message in log.messages:
        learner.feed(message)
    assert UNREADABLE._value.get() == before + 2
    assert (learner.learned, learner.position) == (1, 4)


def test_a_checkpoint_is_due_by_log_time_or_batches_but_not_where_nothing_was_learned() -> None:
    log, learner = Log(), new(replace(LOGS, batch=1))
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


def test_on_another_log_the_weights_go_on_and_positions_begin_anew() -> None:
    log, learner, other = Log(seed=3).play(15), new(), new()
    for message in log.messages:
        learner.feed(message)
    state = learner.state_dict()
    other.load_state_dict(state, same_log=False)
    assert (other.position, other.learned, other.duplicates) == (0, 0, 0)
    kept = other.state_dict()
    for part in ("stream_state", "served", "training"):
        assert differences(kept[part], state[part]) == []
    fresh = Log(seed=3).play(4)
    for message in fresh.messages:
        other.feed(message)
    other.feed(Message("activity", 0, 10_000, fresh.at + 10**6, b"", tick()))
    assert other.learned == len(fresh.events)  # its offsets were learned on the other log, and mean nothing here


def test_the_model_is_ranked_beside_the_simple_ways_on_the_same_events() -> None:
    log, learner = Log(seed=4).play(40), new()
    for message in log.messages:
        learner.feed(message)
    scored = [ranking.scored() for ranking in learner.rankings.values()]
    assert list(learner.rankings) == ["full", "popularity", "popularity_recent", "cooccurrence"]
    assert scored[0]["all"] > 100
    assert all(one == scored[0] for one in scored)
    assert 0 < learner.unlaunched < scored[0]["all"]  # watched before they launched, or withdrawn


def test_a_relaunch_and_a_withdrawal_reach_model_and_baselines_alike() -> None:
    log, learner = Log(), new(replace(LOGS, titles=1))
    title = Title(
        title="t", name="", genres=[], year=None, released=None, launched=0, stamp=0, withdrawn=False,
        semantic=np.ones(8, np.float32).tobytes(), appended=0, offset=0,
    )  # fmt: skip
    known = []
    for one in (title, structs.replace(title, withdrawn=True), structs.replace(title, semantic=b"")):
        log.write(one)
        learner.feed(log.messages[-1])
        candidate = bool(learner.learner.stream_state.titles().candidate_V[0])
        known.append((candidate, learner.baselines.rank("u", "t", 0)["popularity"] < math.inf))
    assert known == [(True, True), (False, False), (True, True)]
    assert not learner.learner.stream_state.catalog.semantic_VS[0].any()
    assert decode_log(log.messages[0].value or b"") == title


def test_the_window_of_what_was_learned_is_bounded_and_survives() -> None:
    once = Deduplicator(window=3)
    assert [once.first(0, offset) for offset in (5, 6, 5, 7)] == [True, True, False, True]
    assert once.first(1, 5)  # another partition
    other = Deduplicator(window=3)
    other.load_state_dict(once.state_dict())
    for one in (once, other):
        assert one.first(0, 8)  # pushes out 5
        assert [one.first(0, offset) for offset in (6, 7, 8, 5)] == [False, False, False, True]
        assert all(len(seen) <= 3 for seen in one.offsets.values())


def forgetful(user: str = "u300") -> Log:
    """A log in which a user with a name of its own acts for long, is forgotten, and is gone."""
    log = Log(seed=5).play(20)
    for place in range(25):
        log.stream.now += 60_000
        log.stream.histories.setdefault(user, []).append((f"t{place % 11}", log.stream.now, PLAY))
        log.events.append((user, place, len(log.events)))
        log.tell(log.events[-1:])
        log.happen(1)
    log.forget(user)
    return log


def test_after_a_request_to_forget_no_part_of_the_state_knows_the_user() -> None:
    log, user = forgetful(), "u300"
    learner = new(replace(LOGS, batch=5))
    before: list[str] = []
    for message in log.messages:
        if isinstance(decode_log(message.value or b""), Forgotten):
            stream_state = learner.learner.stream_state
            user_index = stream_state.user_store.user_index(user)
            before = holds(learner.state_dict(), user)
        learner.feed(message)
        if isinstance(decode_log(message.value or b""), Forgotten):
            assert learner.position == message.offset + 1
            assert user_index not in stream_state.user_store.interactions.title_users_VA
    for part in (
        "/memory/audience/users",
        "/log/baselines/users",
        "/training/contenders/premiere/sequence/replay/users",
    ):
        assert any(path.startswith(part) for path in before)
    assert holds(learner.state_dict(), user) == []


def test_forgetting_is_a_function_of_the_log_and_survives_a_restart(tmp_path: Path) -> None:
    log = forgetful().play(8)
    log.forget("u2")
    log.play(5)
    log.forget("u2")  # once more, and somebody nobody knows
    log.forget("u999")
    log.play(3)
    log.write(Tick(ts=0), later=1_000)
    straight, saved = new(), []
    for message in log.messages:
        waiting = straight.position < message.offset
        straight.feed(message)
        asked = isinstance(decode_log(message.value or b""), Forgotten)
        if asked or (waiting and message.offset % 25 == 0):
            saved.append(str(tmp_path / f"{message.offset:06d}"))
            checkpoint.save(saved[-1], straight.state_dict(), {"position": straight.position})
    assert len(saved) > 6
    for url in saved:
        after = new()
        after.load_state_dict(checkpoint.load(url)[0])
        for message in log.messages[after.position :]:
            after.feed(message)
        assert differences(after.state_dict(), straight.state_dict()) == []


def test_a_request_that_is_written_twice_forgets_once() -> None:
    log, learner = Log(), new(replace(LOGS, batch=1))
    forget = Forgotten(user="u", partition=0, offset=5, appended=0)
    for record in (activity(3, 4), forget, activity(7), activity(3), forget):
        log.write(record)
    for message in log.messages:
        learner.feed(message)
    assert learner.learner.stream_state.user_store.count("u") == 1
    assert (learner.learned, learner.duplicates) == (3, 1)
