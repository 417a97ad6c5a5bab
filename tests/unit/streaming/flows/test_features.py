"""Flow `features`: its output, which neither poll boundaries nor crashes change."""

import json
import pickle
import time
import uuid
from pathlib import Path

import pytest
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main
from confluent_kafka import Producer
from prometheus_client import REGISTRY

from infra.topics import create_topics
from model.actions import ACTIONS
from streaming.flows.features import build, parse_events, parse_requests
from streaming.kafka.partitioner import PartitionRule, partition_of
from streaming.kafka.sink import KafkaSink, Outgoing
from streaming.kafka.source import KafkaSource, Message, read_all
from streaming.records import Activity, Tick, UserErasure, decode_log
from streaming.state.expiry import DAY_MS
from streaming.state.user_state import Lifetimes
from streaming.topics import ACTIVITY, DEAD_LETTERS, ERASURE_REQUESTS, Topic, topics
from tests.support.features import NOW, FeaturesRun, erasure_request, event, polls, run_flow, run_in_order

STEPS = {
    "features.user_events",
    "features.parsed",
    "features.erasure_requests",
    "features.parsed_requests",
    "features.parsed_polls",
    "features.letters",
    "features.by_user",
    "features.histories",
    "features.silence",
    "features.ticks",
    "features.records",
    "features.online_batches",
    "features.online_retries",
    "features.online_rows",
    "features.rows",
    "features.erased",
    "features.empty_batches",
    "features.log",
    "features.offline_rows",
    "features.erasure_rows",
    "features.activity",
    "features.online",
    "features.offline",
    "features.erasures",
    "features.dead_letters",
}


def stream(count: int = 300) -> list[Message]:
    """Events of 7 users, with late and duplicate events."""
    return [
        event(
            f"u{n % 7}", f"t{n}", NOW - 1_000_000 + (n * 7919) % 5_000, n, event_id=f"e{n - 28 if n % 11 == 0 else n}"
        )
        for n in range(count)
    ]


def test_event_becomes_an_activity_record_and_rows() -> None:
    run = run_flow([[event("u", "a", NOW - 9, 0), event("u", "b", NOW - 5, 1, rating=4.5), event("v", "a", NOW, 2)]])
    assert [(record.user, record.count, record.titles, record.times) for record in run.activities()] == [
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


def test_event_in_a_wrong_partition_becomes_a_dead_letter() -> None:
    rule = PartitionRule(8, since=NOW + 2)
    right = partition_of(b"u", 8)
    wrong = (right + 1) % 8
    records = [event("u", "a", NOW, n, partition) for n, partition in enumerate([wrong, right, right, wrong])]
    run = run_flow([records], partition_rule=rule)
    assert set(run.rows()) == {(wrong, 0), (right, 1), (right, 2)}  # the first one was appended before the rule
    (letter,) = run.letters.all()
    assert (
        dict(letter.headers)["reason"].decode()
        == f"partition: the key belongs to partition {right} of 8; use the partitioner murmur2"
    )


def test_context_only_action_is_in_the_history_and_new() -> None:
    (activity,) = run_flow([[event("u", "a", NOW, 0, action="impression")]]).activities()
    assert activity.actions == [ACTIONS["impression"].code]
    assert len(activity.new) == 1


@pytest.mark.parametrize("size", [1, 13, 300])
def test_rows_do_not_depend_on_poll_boundaries(size: int) -> None:
    run, expected = run_flow(polls(stream(), size)), run_flow(polls(stream(), 5))
    assert run.rows() == expected.rows()
    assert len(run.offline.all()) == len(run.rows()) == 300 - 25  # 25 duplicate ids
    new_events = [(new.partition, new.offset) for record in run.activities() for new in record.new]
    assert sorted(new_events) == sorted(run.rows())


def test_new_event_is_at_its_index_in_the_history() -> None:
    run = run_flow(polls(stream(), 50), history=10)
    rows = run.rows()
    for activity in run.activities():
        assert activity.times == sorted(activity.times)
        for new in activity.new:
            row = rows[new.partition, new.offset]
            assert (activity.titles[new.index], activity.times[new.index]) == (row["title"], row["event_ms"])


def test_very_many_events_of_a_user_become_several_records() -> None:
    run = run_flow([[event("u", f"t{n}", NOW - 10_000 + n, n) for n in range(500)]])
    activities = run.activities()
    assert [len(record.new) for record in activities] == [100] * 5
    assert all(len(record.titles) <= 200 for record in activities)
    assert min(new.index for record in activities[1:] for new in record.new) == 100
    assert [row["event_count"] for row in run.online.all()] == [500]


def test_duplicate_event_is_dropped_and_counted() -> None:
    before = REGISTRY.get_sample_value("premiere_duplicates_total") or 0.0
    run = run_flow([[event("u", "a", NOW, 0, event_id="x"), event("v", "a", NOW, 1, event_id="x")]] * 2)
    assert sorted(run.rows()) == [(0, 0), (0, 1)]  # an event id is unique per user only
    assert len(run.activities()) == 2
    assert REGISTRY.get_sample_value("premiere_duplicates_total") == before + 2


def test_silence_is_a_tick_and_an_empty_batch_per_shard() -> None:
    run = run_flow([[]], shards=3, clock=lambda: 12.3456)
    assert run.log() == [Tick(ts=12_345)]
    assert run.offline.items == run.online.items == {"0": [[]], "1": [[]], "2": [[]]}
    assert run.letters.all() == []


def test_rows_are_sharded_by_the_partition_of_their_event() -> None:
    run = run_flow([[event("u", "a", NOW, 0, partition=4), event("v", "a", NOW, 1, partition=4)]], shards=3)
    assert [[row["user_id"] for row in item] for item in run.offline.items["1"]] == [["u", "v"]]
    assert [[row["user_id"] for row in item] for item in run.online.items["1"]] == [["u", "v"]]


def test_crash_and_reprocessing_change_no_row(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    all_polls = polls(stream(), 10)
    source = TestingSource[list[Message]](
        [*all_polls[:12], TestingSource.EOF(), *all_polls[12:20], TestingSource.ABORT(), *all_polls[20:]]
    )
    run, expected = FeaturesRun(), run_flow(all_polls)
    for _ in range(3):
        run_main(run.flow(source), recovery_config=RecoveryConfig(tmp_path))
    assert len(run.offline.all()) > len(run.rows())  # the polls before the crash were read again
    assert run.rows() == expected.rows()
    assert all(run.rows()[row["partition"], row["offset"]] == row for row in run.offline.all())  # duplicates are equal
    assert run.activities()[-1] == expected.activities()[-1]
    counts, expected_counts = ({a.user: a.count for a in one.activities()} for one in (run, expected))
    assert counts == expected_counts


def test_step_ids_are_keys_of_the_recovery_store() -> None:
    flow = FeaturesRun().flow(TestingSource([]))
    assert {step.step_id for step in flow.substeps} == STEPS


def test_parsed_poll_can_be_pickled_for_another_worker() -> None:
    events = parse_events([event("u", "t", NOW, 0), Message("user-events", 0, 1, NOW, None, None)])
    requests = parse_requests([erasure_request("u", 0)])
    assert pickle.loads(pickle.dumps((events, requests))) == (events, requests)


def test_every_message_is_a_row_a_duplicate_or_a_dead_letter(kafka: str) -> None:
    config = {"bootstrap.servers": kafka}
    used = (ACTIVITY, DEAD_LETTERS, ERASURE_REQUESTS)
    origin, user = f"user-events-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    create_topics(config, [Topic(origin, 2, {}), *[topic for topic in topics() if topic.name in used]])
    producer, now = Producer(config), int(time.time() * 1000)
    for n in range(200):
        user_id = f"{user}-{n % 5}"
        body = {"user": user_id, "title": f"t{n}", "ts": now + n, "event_id": f"e{n % 190}"}
        producer.produce(origin, json.dumps(body).encode(), user_id)
    for invalid in (b"{", b"[]", b'{"user":1}'):
        producer.produce(origin, invalid, user)
    assert producer.flush(10) == 0
    run = FeaturesRun()
    flow = build(
        events=KafkaSource(config, origin, "features", tail=False),
        requests=KafkaSource(config, ERASURE_REQUESTS, "features", tail=False),
        activity=KafkaSink(config),
        online=run.online,
        offline=run.offline,
        erasures=run.erasures,
        dead_letters=KafkaSink(config),
    )
    run_main(flow)
    log = [decode_log(message.value or b"") for message in read_all(config, ACTIVITY)]
    activities = [record for record in log if isinstance(record, Activity) and record.user.startswith(user)]
    letters = [m for m in read_all(config, DEAD_LETTERS) if dict(m.headers)["topic"] == origin.encode()]
    assert len(run.rows()) == sum(len(record.new) for record in activities) == 190
    assert sorted(message.value or b"" for message in letters) == sorted([b"{", b"[]", b'{"user":1}'])


def test_log_records_are_keyed_by_user() -> None:
    (record,) = run_flow([[event("u", "t", NOW, 0)]]).activity.all()
    assert isinstance(record, Outgoing)
    assert record.key == b"u"


def test_log_record_names_the_topic_of_its_source() -> None:
    run = run_in_order(
        [event("u", "a", NOW, 0), erasure_request("u", 1)], events_id="events-1", requests_id="requests-1"
    )
    sources = {type(record): record.source for record in run.log() if isinstance(record, Activity | UserErasure)}
    assert sources == {Activity: "events-1", UserErasure: "requests-1"}


def test_state_ends_after_its_lifetime_and_the_user_is_new_again() -> None:
    later = NOW + 40 * DAY_MS
    records = [*(event("regular", f"t{n}", NOW, n) for n in range(5)), event("once", "a", NOW, 5)]
    after = [event(user, "z", later, 6)._replace(appended=later) for user in ("other", "regular", "once")]
    run = run_flow([records, after[:1], [], after[1:]], clock=lambda: later / 1000)
    assert {activity.user: activity.count for activity in run.activities()} == {"regular": 6, "once": 1, "other": 1}


def test_restart_with_too_many_states_ends_some_and_goes_on(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    first, second = [[event(f"u{n}", "a", NOW, n)] for n in range(30)], [[event("u29", "b", NOW, 30)], [], [], []]
    run = FeaturesRun()
    source = TestingSource[list[Message]]([*first, TestingSource.EOF(), *second])
    for _ in range(2):
        run_main(run.flow(source, lifetimes=Lifetimes(max_users=10)), recovery_config=RecoveryConfig(tmp_path))
    assert REGISTRY.get_sample_value("premiere_keyed_states") == 10
    assert run.activities()[-1].user == "u29"
    assert len(run.rows()) == 31
