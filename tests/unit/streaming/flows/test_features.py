"""Flow `features`: what goes in, what comes out, and that neither cuts nor crashes change it."""

import json
import pickle
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main
from confluent_kafka import Producer
from prometheus_client import REGISTRY

from infra.run.prune_recovery import sweep
from infra.topics import create
from model.actions import ACTIONS
from streaming.flows.features import build, sort
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import KafkaSource, Message, read_all
from streaming.records import Activity, Forgotten, Tick, decode_log
from streaming.topics import ACTIVITY, DEAD_LETTERS, Topic, topics
from tests.support.features import NOW, Run, event, forget, play, polls

STEPS = {
    "features.user_events",
    "features.sorted_polls",
    "features.rejected",
    "features.by_user",
    "features.histories",
    "features.silence",
    "features.ticks",
    "features.logged",
    "features.newest",
    "features.rows",
    "features.nothing",
    "features.log",
    "features.offline_rows",
    "features.activity",
    "features.online",
    "features.offline",
    "features.marks",
    "features.forgotten_rows",
    "features.forgotten",
    "features.dead_letters",
}


def stream(count: int = 300) -> list[Message]:
    """Events of 7 users: some late, some twice."""
    return [
        event(
            f"u{n % 7}", f"t{n}", NOW - 1_000_000 + (n * 7919) % 5_000, n, event_id=f"e{n - 28 if n % 11 == 0 else n}"
        )
        for n in range(count)
    ]


def test_an_event_becomes_an_activity_and_rows_online_and_offline() -> None:
    run = play([[event("u", "a", NOW - 9, 0), event("u", "b", NOW - 5, 1, rating=4.5), event("v", "a", NOW, 2)]])
    assert [(one.user, one.count, one.titles, one.times) for one in run.activities()] == [
        ("u", 2, ["a", "b"], [NOW - 9, NOW - 5]),
        ("v", 1, ["a"], [NOW]),
    ]
    first = run.activities()[0]
    assert first.actions == [ACTIONS["play"].code, ACTIONS["rated high"].code]
    assert [(new.index, new.partition, new.offset, new.appended) for new in first.new] == [
        (0, 0, 0, NOW),
        (1, 0, 1, NOW + 1),
    ]
    assert {record.key for record in run.activity.all()} == {b"u", b"v"}
    assert {record.topic for record in run.activity.all()} == {ACTIVITY}
    assert [(row["user_id"], row["event_count"], row["title"]) for row in run.offline.all()] == [
        ("u", 1, "a"),
        ("u", 2, "b"),
        ("v", 1, "a"),
    ]
    assert [(row["user_id"], row["event_count"]) for row in run.online.all()] == [("u", 2), ("v", 1)]


def test_context_only_actions_are_in_the_history_and_among_the_new() -> None:
    (activity,) = play([[event("u", "a", NOW, 0, action="impression")]]).activities()
    assert activity.actions == [ACTIONS["impression"].code]
    assert len(activity.new) == 1


@pytest.mark.parametrize("size", [1, 13, 300])
def test_rows_are_the_same_however_polls_are_cut(size: int) -> None:
    run, expected = play(polls(stream(), size)), play(polls(stream(), 5))
    assert run.rows() == expected.rows()
    assert len(run.offline.all()) == len(run.rows()) == 300 - 25  # each once; 25 of the 28 repeat an id of their user
    learned = [(new.partition, new.offset) for one in run.activities() for new in one.new]
    assert sorted(learned) == sorted(run.rows())


def test_every_new_event_is_in_its_activity_where_it_is_said_to_be() -> None:
    run = play(polls(stream(), 50), history=10)
    rows = run.rows()
    for activity in run.activities():
        assert activity.times == sorted(activity.times)
        for new in activity.new:
            row = rows[new.partition, new.offset]
            assert (activity.titles[new.index], activity.times[new.index]) == (row["title"], row["event_ms"])


def test_a_poll_with_very_many_events_of_one_user_is_split_so_that_each_keeps_its_context() -> None:
    run = play([[event("u", f"t{n}", NOW - 10_000 + n, n) for n in range(500)]])
    activities = run.activities()
    assert [len(one.new) for one in activities] == [100] * 5
    assert all(len(one.titles) <= 200 for one in activities)
    assert min(new.index for one in activities[1:] for new in one.new) == 100
    assert [row["event_count"] for row in run.online.all()] == [500]


def test_duplicates_are_dropped_and_counted() -> None:
    before = REGISTRY.get_sample_value("premiere_duplicates_total") or 0.0
    run = play([[event("u", "a", NOW, 0, event_id="x"), event("v", "a", NOW, 1, event_id="x")]] * 2)
    assert sorted(run.rows()) == [(0, 0), (0, 1)]  # an id is its user's
    assert len(run.activities()) == 2
    assert REGISTRY.get_sample_value("premiere_duplicates_total") == before + 2


def test_silence_ticks_once_and_touches_every_part_of_the_offline_log() -> None:
    run = play([[]], shards=3, clock=lambda: 12.3456)
    assert run.log() == [Tick(ts=12_345)]
    assert run.offline.items == {"0": [[]], "1": [[]], "2": [[]]}
    assert run.online.all() == run.dead.all() == []


def test_rows_are_shared_out_by_the_partition_they_came_from() -> None:
    run = play([[event("u", "a", NOW, 0, partition=4), event("v", "a", NOW, 1, partition=4)]], shards=3)
    assert [[row["user_id"] for row in item] for item in run.offline.items["1"]] == [["u", "v"]]
    assert [[row["user_id"] for row in item] for item in run.online.items["1"]] == [["u", "v"]]


def test_a_crash_and_a_replay_change_no_row(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    whole = polls(stream(), 10)
    source = TestingSource[list[Message]](
        [*whole[:12], TestingSource.EOF(), *whole[12:20], TestingSource.ABORT(), *whole[20:]]
    )
    run, expected = Run(), play(whole)
    for _ in range(3):
        run_main(run.flow(source), recovery_config=RecoveryConfig(tmp_path))
    assert len(run.offline.all()) > len(run.rows())  # the polls before the crash were replayed
    assert run.rows() == expected.rows()
    assert all(run.rows()[row["partition"], row["offset"]] == row for row in run.offline.all())  # so are its doubles
    assert run.activities()[-1] == expected.activities()[-1]
    assert {one.user: one.count for one in run.activities()} == {one.user: one.count for one in expected.activities()}


def test_step_ids_are_the_recovery_stores_schema_and_stay() -> None:
    flow = Run().flow(TestingSource([]))
    assert {step.step_id for step in flow.substeps} == STEPS


def test_what_crosses_a_step_can_be_sent_to_another_worker() -> None:
    poll = sort([event("u", "t", NOW, 0), Message("user-events", 0, 1, NOW, None, None)])
    assert pickle.loads(pickle.dumps(poll)) == poll


def test_on_a_real_broker_every_message_is_a_row_a_duplicate_or_a_dead_letter(kafka: str) -> None:
    config = {"bootstrap.servers": kafka}
    origin, user = f"user-events-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    create(config, [Topic(origin, 2, {}), *[topic for topic in topics() if topic.name in (ACTIVITY, DEAD_LETTERS)]])
    producer, now = Producer(config), int(time.time() * 1000)
    for n in range(200):
        viewer = f"{user}-{n % 5}"
        body = {"user": viewer, "title": f"t{n}", "ts": now + n, "event_id": f"e{n % 190}"}
        producer.produce(origin, json.dumps(body).encode(), viewer)
    for bad in (b"{", b"[]", b'{"user":1}'):
        producer.produce(origin, bad, user)
    assert producer.flush(10) == 0
    run = Run()
    flow = build(
        events=KafkaSource(config, origin, "features", tail=False),
        activity=KafkaSink(config),
        online=run.online,
        offline=run.offline,
        forgotten=run.forgotten,
        dead_letters=KafkaSink(config),
    )
    run_main(flow)
    log = [decode_log(message.value or b"") for message in read_all(config, ACTIVITY)]
    learned = [new for one in log if isinstance(one, Activity) and one.user.startswith(user) for new in one.new]
    letters = [m for m in read_all(config, DEAD_LETTERS) if dict(m.headers)["topic"] == origin.encode()]
    assert len(run.rows()) == len(learned) == 190
    assert sorted(message.value or b"" for message in letters) == sorted([b"{", b"[]", b'{"user":1}'])


def test_outgoing_records_of_the_log_are_keyed_by_user() -> None:
    (record,) = play([[event("u", "t", NOW, 0)]]).activity.all()
    assert isinstance(record, Outgoing)
    assert record.key == b"u"


@pytest.mark.parametrize("size", [1, 2, 9])
def test_a_user_who_is_forgotten_and_comes_back_is_new_wherever_polls_are_cut(size: int) -> None:
    messages = [
        event("u", "a", NOW - 9, 0, event_id="1"),
        event("v", "a", NOW - 8, 1),
        forget("u", 2),
        event("u", "b", NOW - 50, 3, event_id="1"),
        event("v", "b", NOW - 3, 4),
    ]
    run = play(polls(messages, size))
    log = [record for record in run.log() if isinstance(record, Activity | Forgotten) and record.user == "u"]
    assert log[1] == Forgotten(user="u", partition=0, offset=2, appended=NOW + 2)
    before, after = log[0], log[2]
    assert isinstance(before, Activity)
    assert isinstance(after, Activity)
    assert (before.count, before.titles) == (1, ["a"])
    assert (after.count, after.titles, [new.offset for new in after.new]) == (1, ["b"], [3])
    online = [(row["offset"], "event_timestamp" in row) for row in run.online.all() if row["user_id"] == "u"]
    assert online[-2:] == [(2, False), (3, True)]
    (mark,) = run.forgotten.all()
    assert (mark["user_id"], mark["partition"], mark["offset"]) == ("u", 0, 2)
    assert run.rows()[0, 3]["event_count"] == 1
    assert run.rows()[0, 4]["event_count"] == 2  # another's history goes on
    assert mark["appended"].timestamp() * 1000 == NOW + 2


def test_a_user_nobody_knows_can_be_forgotten() -> None:
    run = play([[forget("nobody", 0, reason="asked by mail")]])
    assert [record for record in run.log() if isinstance(record, Forgotten)] == [
        Forgotten(user="nobody", partition=0, offset=0, appended=NOW)
    ]
    assert [(note.key, note.headers) for note in run.dead.all()] == [(b"nobody", [("forgotten", b"user-events-0-0")])]


def test_a_note_of_a_request_to_forget_lies_behind_the_letters_that_it_covers() -> None:
    bad = [event("u", "t", NOW, offset, action="yawn") for offset in (0, 2)]
    run = play([[bad[0], forget("u", 1), bad[1]]])
    assert [next(name for name, _ in record.headers) for record in run.dead.all()] == ["topic", "forgotten", "topic"]


@pytest.mark.parametrize("field", ["forget", "meta"])
def test_an_event_with_an_unknown_field_of_that_name_is_an_event(field: str) -> None:
    value = {"forget": "nothing"} if field == "forget" else {"meta": {"forget": True}, "forget": False}
    run = play([[event("u", "a", NOW, 0, **value)]])
    assert list(run.rows()) == [(0, 0)]
    assert run.forgotten.all() == []


def test_a_forgotten_user_leaves_nothing_in_the_recovery_store(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    config = RecoveryConfig(str(tmp_path), timedelta(0))
    user, run = uuid.uuid4().hex, Run()
    inputs: list[Any] = [[event(user, "a", NOW, 0)], [event("v", "a", NOW, 1)], [forget(user, 2)]]

    def go_on(messages: list[list[Message]]) -> None:
        inputs.extend([*messages, TestingSource.EOF()])
        run_main(run.flow(TestingSource(inputs)), epoch_interval=timedelta(0), recovery_config=config)

    go_on([[event("v", f"t{n}", NOW, 3 + n)] for n in range(9)])
    assert sweep(tmp_path) == 1
    assert sweep(tmp_path) == 0
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"features.histories" in kept
    assert user.encode() not in kept
    go_on([[event(user, "b", NOW, 20), event("v", "b", NOW, 21)]])
    assert [run.rows()[0, offset]["event_count"] for offset in (20, 21)] == [1, 11]
