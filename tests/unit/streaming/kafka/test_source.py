"""The source on a real broker: it skips and repeats nothing, and it never waits for what cannot come."""

import queue
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main, run_main
from confluent_kafka import Consumer, KafkaError, TopicPartition

from infra.local.embedded import free_port
from streaming.errors import OffsetOutOfRangeError, StreamError
from streaming.kafka import reconnect
from streaming.kafka.client import DISCARD_THREAD
from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.source import KafkaSource, Message, read_all
from tests.support.kafka import StartBroker
from tests.support.streams import EPOCH_INTERVAL, deadline, flow, group_offset, new_topic, numbers, poll_until, produce


@pytest.fixture
def config(kafka: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka}


@pytest.fixture
def recovery(tmp_path: Path) -> RecoveryConfig:
    init_db_dir(tmp_path, 1)
    return RecoveryConfig(tmp_path)


def test_poll_contains_messages_with_their_position(config: dict[str, str], topic: str) -> None:
    before = int(time.time() * 1000)
    produce(config, topic, range(3))
    messages: list[Message] = []
    run_main(flow(KafkaSource(config, topic, "g", tail=False), messages))
    assert [(m.topic, m.partition, m.offset, m.key, m.value) for m in messages] == [
        (topic, 0, n, b"k", str(n).encode()) for n in range(3)
    ]
    assert all(before <= m.appended <= int(time.time() * 1000) for m in messages)


def test_without_tail_the_input_ends_at_the_end_of_the_log(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(6))
    produce(config, topic, range(6, 106))
    messages: list[Message] = []
    run_main(flow(KafkaSource(config, topic, "g", tail=False, batch=7), messages))
    assert numbers(messages) == list(range(106))


def test_new_dataflow_begins_at_the_start_offset(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(10))
    messages: list[Message] = []
    run_main(flow(KafkaSource(config, topic, "g", tail=False, start={0: 8}), messages))
    assert numbers(messages) == [8, 9]


def test_crash_loses_and_duplicates_nothing(config: dict[str, str], topic: str, recovery: RecoveryConfig) -> None:
    produce(config, topic, range(2000))
    count, messages = 0, list[Message]()

    def crash_midway(poll: list[Message]) -> None:
        nonlocal count
        count += len(poll)
        time.sleep(0.02)
        if count >= 1000:
            raise RuntimeError("crash")

    source = KafkaSource(config, topic, "g", tail=False, batch=50)
    with pytest.raises(RuntimeError):
        run_main(flow(source, messages, crash_midway), epoch_interval=EPOCH_INTERVAL, recovery_config=recovery)
    committed = group_offset(config, "g", topic)
    assert 0 < committed < 1000
    reprocessed: list[Message] = []
    run_main(flow(source, messages, reprocessed.extend), epoch_interval=EPOCH_INTERVAL, recovery_config=recovery)
    assert numbers(messages) == list(range(2000))
    assert committed <= numbers(reprocessed)[0] < 1000  # the group was never ahead of the recovery state


def test_stop_ends_the_input_and_the_next_run_continues(
    config: dict[str, str], topic: str, recovery: RecoveryConfig
) -> None:
    produce(config, topic, range(100))
    stop, messages = threading.Event(), list[Message]()
    source = KafkaSource(config, topic, "g", stop=stop, batch=10)
    dataflow = flow(source, messages, lambda poll: stop.set())
    run_main(dataflow, epoch_interval=EPOCH_INTERVAL, recovery_config=recovery)
    assert numbers(messages) == list(range(10))
    source.commit()
    assert group_offset(config, "g", topic) == 10
    run_main(flow(KafkaSource(config, topic, "g", tail=False), messages), recovery_config=recovery)
    assert numbers(messages) == list(range(100))


def test_empty_partition_resumes_at_its_offset_and_not_at_the_end(
    config: dict[str, str], topic: str, recovery: RecoveryConfig
) -> None:
    messages: list[Message] = []
    for values in (range(0), range(3)):
        produce(config, topic, values)
        dataflow = flow(KafkaSource(config, topic, "g", tail=False), messages)
        run_main(dataflow, epoch_interval=EPOCH_INTERVAL, recovery_config=recovery)
    assert numbers(messages) == [0, 1, 2]


def test_group_offset_is_committed_without_a_recovery_store(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(5))
    stop, committed = threading.Event(), list[int]()

    def wait_for_the_group(poll: list[Message]) -> None:
        if not poll:
            committed.append(group_offset(config, "g", topic))
            if committed[-1] == 5 or len(committed) > 50:
                stop.set()

    source = KafkaSource(config, topic, "g", stop=stop, idle=timedelta(milliseconds=100))
    run_main(flow(source, [], wait_for_the_group), epoch_interval=EPOCH_INTERVAL)
    assert committed[-1] == 5


def test_source_commits_the_position_that_a_step_advances(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(5))
    stop, position, sizes = threading.Event(), CommitPosition({0: 2}), list[int]()

    def stop_after_three_empty_polls(poll: list[Message]) -> None:
        sizes.append(len(poll))
        if sizes.count(0) == 3:
            stop.set()

    source = KafkaSource(config, topic, "g", stop=stop, idle=timedelta(milliseconds=100), position=position)
    run_main(flow(source, [], stop_after_three_empty_polls), epoch_interval=EPOCH_INTERVAL)
    assert group_offset(config, "g", topic) == 2
    position.advance(0, 4)
    source.commit()
    assert group_offset(config, "g", topic) == 4


def test_unknown_position_is_not_committed(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(5))
    source = KafkaSource(config, topic, "g", tail=False, position=CommitPosition())
    run_main(flow(source, []), epoch_interval=EPOCH_INTERVAL)
    source.commit()
    assert group_offset(config, "g", topic) < 0


def test_silence_is_one_empty_poll_whatever_the_number_of_partitions(config: dict[str, str]) -> None:
    topic = new_topic(config, 4)
    stop, polls = threading.Event(), list[tuple[float, int]]()

    def note(poll: list[Message]) -> None:
        polls.append((time.monotonic(), len(poll)))
        if len(polls) == 3:
            stop.set()

    run_main(flow(KafkaSource(config, topic, "g", stop=stop, idle=timedelta(seconds=0.2)), [], note))
    assert [size for _, size in polls] == [0, 0, 0]
    assert polls[2][0] - polls[0][0] >= 0.4


def test_only_partition_0_yields_empty_polls(config: dict[str, str]) -> None:
    topic = new_topic(config, 2)
    source = KafkaSource(config, topic, "g", idle=timedelta(0))
    first, second = (source.build_part("polls", name, None) for name in source.list_parts())
    assert first.next_batch() == [[]]
    assert second.next_batch() == []
    first.close()
    second.close()


def test_two_workers_divide_the_partitions(config: dict[str, str]) -> None:
    topic = new_topic(config, 3)
    for partition in range(3):
        produce(config, topic, range(partition * 100, partition * 100 + 50), partition)
    messages: list[Message] = []
    source = KafkaSource(config, topic, "g", tail=False)
    cluster_main(flow(source, messages), [], 0, worker_count_per_proc=2)
    assert sorted(numbers(messages)) == [part * 100 + n for part in range(3) for n in range(50)]
    source.commit()
    assert [group_offset(config, "g", topic, partition) for partition in range(3)] == [50, 50, 50]


def test_offset_beyond_the_end_is_an_error_and_is_kept(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(10))
    source = KafkaSource(config, topic, "g", start={0: 500}, out_of_range_timeout=timedelta(seconds=1))
    part = source.build_part("polls", "00000", None)
    with pytest.raises(OffsetOutOfRangeError, match=r"Offset 500 .* recovery folder"):
        poll_until(part, bool)
    assert part.snapshot() == (1, 500)
    part.close()


def test_offset_at_the_end_is_valid(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(6))
    produce(config, topic, range(6, 106))
    source = KafkaSource(config, topic, "g", out_of_range_timeout=timedelta(0))
    part = source.build_part("polls", "00000", (1, 106))
    is_late = deadline(1.5)  # the source checks once a second
    assert poll_until(part, lambda messages: is_late()) == []
    produce(config, topic, [106])
    assert numbers(poll_until(part, bool)) == [106]
    part.close()


def test_position_of_a_newer_format_is_refused(config: dict[str, str], topic: str) -> None:
    with pytest.raises(StreamError, match="format 99"):
        KafkaSource(config, topic, "g").build_part("polls", "00000", (99, 0))


def test_stale_client_is_replaced(
    config: dict[str, str], topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconnect, "STALE_CLIENT_S", 0.5)
    produce(config, topic, range(3))
    source = KafkaSource(config, topic, "g")
    part = source.build_part("polls", "00000", (1, 1))
    assert numbers(poll_until(part, bool)) == [1, 2]
    available = source.config
    source.config = available | {"bootstrap.servers": f"127.0.0.1:{free_port()}"}
    lost = part.consumer
    part.connection.current = part._new_client(part.outage.begin)  # like a stale client: it does not know the broker
    source.config = available
    lost.close()
    produce(config, topic, [3])
    is_late = deadline(20)
    assert numbers(poll_until(part, lambda messages: bool(messages) or is_late())) == [3]
    assert "stale" in caplog.text
    assert poll_until(part, lambda messages: not part.outage.active) == []
    part.close()


def test_client_is_replaced_once_after_an_outage(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(3))
    part = KafkaSource(config, topic, "g").build_part("polls", "00000", (1, 1))
    assert numbers(poll_until(part, bool)) == [1, 2]
    part.consumer.pause([TopicPartition(topic, 0)])
    produce(config, topic, [3])
    is_late = deadline(1.5)
    assert poll_until(part, lambda messages: is_late()) == []  # the client is stale without an error
    part.outage.begin(KafkaError(KafkaError._TRANSPORT))
    part.outage.end()
    assert numbers(poll_until(part, bool)) == [3]
    clients = part.connection.count
    is_late = deadline(2.5)
    assert poll_until(part, lambda messages: is_late()) == []
    assert part.connection.count == clients
    part.close()


def test_many_partitions_close_in_time_without_a_broker(start_broker: StartBroker, tmp_path: Path) -> None:
    with start_broker(tmp_path / "kafka") as address:
        config = {"bootstrap.servers": address}
        source = KafkaSource(config, new_topic(config, 24), "g")
        parts = [source.build_part("step", part, None) for part in source.list_parts()]
    for part in parts:
        part.snapshot()  # sends a commit that is never answered
    is_late = deadline(10)  # a flow that has not ended by then is killed
    for part in parts:
        part.close()
    assert not is_late()


def test_read_all_ends_at_the_end_of_every_partition(config: dict[str, str]) -> None:
    topic = new_topic(config, 3)
    assert list(read_all(config, topic)) == []
    produce(config, topic, range(5), 1)
    produce(config, topic, range(5, 3000), 1)
    produce(config, topic, range(3000, 3100), 2)
    messages = list(read_all(config, topic))
    assert numbers(m for m in messages if m.partition == 1) == list(range(3000))
    assert numbers(m for m in messages if m.partition == 2) == list(range(3000, 3100))


def test_client_that_is_stale_without_an_error_is_replaced(
    config: dict[str, str], topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    destroyed_by = queue.SimpleQueue[str]()

    class StaleConsumer(Consumer):
        def __del__(self) -> None:
            destroyed_by.put(threading.current_thread().name)

    monkeypatch.setattr(reconnect, "END_PROBE_INTERVAL_S", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr("streaming.kafka.source.Consumer", StaleConsumer)
        part = KafkaSource(config, topic, "g").build_part("polls", "00000", (1, 0))
    part.consumer.pause([TopicPartition(topic, 0)])
    is_late = deadline(3.5)
    assert poll_until(part, lambda messages: is_late()) == []
    assert part.connection.count == 1  # nothing is missed
    produce(config, topic, [0])
    produce(config, topic, [1])
    assert numbers(poll_until(part, lambda messages: len(messages) == 2)) == [0, 1]
    assert (part.connection.count, part.outage.count) == (2, 0)
    assert destroyed_by.get(timeout=30) == DISCARD_THREAD  # because it may block
    part.close()
