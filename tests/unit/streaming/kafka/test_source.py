"""The source on a real broker: nothing skipped, nothing forgotten, nothing waited for in vain."""

import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main, run_main
from confluent_kafka import KafkaError, TopicPartition

from infra.local.embedded import free_port
from infra.local.processes import PATIENCE
from streaming.kafka import client as broker
from streaming.kafka.client import PositionLostError, StreamError
from streaming.kafka.source import KafkaSource, Message
from tests.support.kafka import OwnKafka
from tests.support.streams import EPOCH, deadline, flow, group_offset, new_topic, numbers, poll_until, produce


@pytest.fixture
def config(kafka: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka}


@pytest.fixture
def recovery(tmp_path: Path) -> RecoveryConfig:
    init_db_dir(tmp_path, 1)
    return RecoveryConfig(tmp_path)


def test_an_item_is_a_poll_of_messages_that_tell_where_they_lay(config: dict[str, str], topic: str) -> None:
    before = int(time.time() * 1000)
    produce(config, topic, range(3))
    kept: list[Message] = []
    run_main(flow(KafkaSource(config, topic, "g", tail=False), kept))
    assert [(m.topic, m.partition, m.offset, m.key, m.value) for m in kept] == [
        (topic, 0, n, b"k", str(n).encode()) for n in range(3)
    ]
    assert all(before <= m.appended <= int(time.time() * 1000) for m in kept)


def test_without_tail_the_input_ends_at_the_true_end_of_the_log(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(6))
    produce(config, topic, range(6, 106))
    kept: list[Message] = []
    run_main(flow(KafkaSource(config, topic, "g", tail=False, batch=7), kept))
    assert numbers(kept) == list(range(106))


def test_a_start_offset_is_where_a_new_dataflow_begins(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(10))
    kept: list[Message] = []
    run_main(flow(KafkaSource(config, topic, "g", tail=False, start={0: 8}), kept))
    assert numbers(kept) == [8, 9]


def test_a_crash_loses_and_doubles_nothing(config: dict[str, str], topic: str, recovery: RecoveryConfig) -> None:
    produce(config, topic, range(2000))
    seen, kept = 0, list[Message]()

    def crash_midway(poll: list[Message]) -> None:
        nonlocal seen
        seen += len(poll)
        time.sleep(0.02)
        if seen >= 1000:
            raise RuntimeError("the power fails")

    source = KafkaSource(config, topic, "g", tail=False, batch=50)
    with pytest.raises(RuntimeError):
        run_main(flow(source, kept, crash_midway), epoch_interval=EPOCH, recovery_config=recovery)
    first = group_offset(config, "g", topic)
    assert 0 < first < 1000
    again: list[Message] = []
    run_main(flow(source, kept, again.extend), epoch_interval=EPOCH, recovery_config=recovery)
    assert numbers(kept) == list(range(2000))
    assert first <= numbers(again)[0] < 1000  # the group was never ahead of what was recovered


def test_stop_ends_the_input_and_the_next_run_goes_on(
    config: dict[str, str], topic: str, recovery: RecoveryConfig
) -> None:
    produce(config, topic, range(100))
    stop, kept = threading.Event(), list[Message]()
    source = KafkaSource(config, topic, "g", stop=stop, batch=10)
    run_main(flow(source, kept, lambda poll: stop.set()), epoch_interval=EPOCH, recovery_config=recovery)
    assert numbers(kept) == list(range(10))
    source.commit()
    assert group_offset(config, "g", topic) == 10
    run_main(flow(KafkaSource(config, topic, "g", tail=False), kept), recovery_config=recovery)
    assert numbers(kept) == list(range(100))


def test_an_idle_partition_resumes_where_it_was_and_not_at_the_end(
    config: dict[str, str], topic: str, recovery: RecoveryConfig
) -> None:
    kept: list[Message] = []
    run_main(flow(KafkaSource(config, topic, "g", tail=False), kept), epoch_interval=EPOCH, recovery_config=recovery)
    produce(config, topic, range(3))
    run_main(flow(KafkaSource(config, topic, "g", tail=False), kept), epoch_interval=EPOCH, recovery_config=recovery)
    assert numbers(kept) == [0, 1, 2]


def test_group_offsets_follow_an_epoch_behind_also_without_a_recovery_store(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(5))
    stop, kept = threading.Event(), list[Message]()
    committed: list[int] = []

    def wait_for_the_group(poll: list[Message]) -> None:
        if not poll:
            committed.append(group_offset(config, "g", topic))
            if committed[-1] == 5 or len(committed) > 50:
                stop.set()

    source = KafkaSource(config, topic, "g", stop=stop, idle=timedelta(milliseconds=100))
    run_main(flow(source, kept, wait_for_the_group), epoch_interval=EPOCH)
    assert committed[-1] == 5


def test_a_flow_with_a_commit_of_its_own_tells_what_the_group_shows(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(5))
    stop, durable, polls = threading.Event(), {0: 2}, list[int]()

    def three_silences(poll: list[Message]) -> None:
        polls.append(len(poll))
        if polls.count(0) == 3:
            stop.set()

    idle = timedelta(milliseconds=100)
    source = KafkaSource(config, topic, "g", stop=stop, idle=idle, durable=durable)
    run_main(flow(source, [], three_silences), epoch_interval=EPOCH)
    assert group_offset(config, "g", topic) == 2
    durable[0] = 4
    source.commit()
    assert group_offset(config, "g", topic) == 4


def test_silence_is_one_empty_poll_however_many_partitions(config: dict[str, str]) -> None:
    topic = new_topic(config, 4)
    stop, polls = threading.Event(), list[tuple[float, int]]()

    def note(poll: list[Message]) -> None:
        polls.append((time.monotonic(), len(poll)))
        if len(polls) == 3:
            stop.set()

    run_main(flow(KafkaSource(config, topic, "g", stop=stop, idle=timedelta(seconds=0.2)), [], note))
    assert [size for _, size in polls] == [0, 0, 0]
    assert polls[2][0] - polls[0][0] >= 0.4


def test_only_the_first_partition_speaks_of_silence_so_that_a_cluster_says_it_once(config: dict[str, str]) -> None:
    topic = new_topic(config, 2)
    source = KafkaSource(config, topic, "g", idle=timedelta(0))
    first, second = (source.build_part("polls", name, None) for name in source.list_parts())
    assert first.next_batch() == [[]]
    assert second.next_batch() == []
    first.close()
    second.close()


def test_two_workers_share_the_partitions(config: dict[str, str]) -> None:
    topic = new_topic(config, 3)
    for partition in range(3):
        produce(config, topic, range(partition * 100, partition * 100 + 50), partition)
    kept: list[Message] = []
    source = KafkaSource(config, topic, "g", tail=False)
    cluster_main(flow(source, kept), [], 0, worker_count_per_proc=2)
    assert sorted(numbers(kept)) == [part * 100 + n for part in range(3) for n in range(50)]
    source.commit()
    assert [group_offset(config, "g", topic, partition) for partition in range(3)] == [50, 50, 50]


def test_an_offset_beyond_the_end_is_an_error_and_is_not_moved(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(10))
    source = KafkaSource(config, topic, "g", start={0: 500}, patience=timedelta(seconds=1))
    part = source.build_part("polls", "00000", None)
    with pytest.raises(PositionLostError, match=r"Offset 500 of .* start anew"):
        poll_until(part, bool)
    assert part.snapshot() == (1, 500)
    part.close()


def test_an_offset_right_at_the_end_is_fine(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(6))
    produce(config, topic, range(6, 106))
    part = KafkaSource(config, topic, "g", patience=timedelta(0)).build_part("polls", "00000", (1, 106))
    late = deadline(1.5)  # the check comes once a second
    assert poll_until(part, lambda messages: late()) == []
    produce(config, topic, [106])
    assert numbers(poll_until(part, bool)) == [106]
    part.close()


def test_a_position_of_a_newer_format_is_refused(config: dict[str, str], topic: str) -> None:
    with pytest.raises(StreamError, match="newer version"):
        KafkaSource(config, topic, "g").build_part("polls", "00000", (99, 0))


def test_a_client_that_does_not_find_the_broker_again_is_replaced(
    config: dict[str, str], topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(broker, "DEAF", 0.5)
    produce(config, topic, range(3))
    source = KafkaSource(config, topic, "g")
    part = source.build_part("polls", "00000", (1, 1))
    assert numbers(poll_until(part, bool)) == [1, 2]
    reaching = source.config
    source.config = reaching | {"bootstrap.servers": f"127.0.0.1:{free_port()}"}
    lost, part.consumer = part.consumer, part._client()  # what an outage may leave: a client without a broker
    source.config = reaching
    lost.close()
    produce(config, topic, [3])
    late = deadline(20)
    assert numbers(poll_until(part, lambda messages: bool(messages) or late())) == [3]
    assert "a new one does" in caplog.text
    assert poll_until(part, lambda messages: not part.outage.on) == []
    part.close()


def test_a_client_that_an_outage_left_deaf_is_replaced_at_the_next_silence(config: dict[str, str], topic: str) -> None:
    produce(config, topic, range(3))
    part = KafkaSource(config, topic, "g").build_part("polls", "00000", (1, 1))
    assert numbers(poll_until(part, bool)) == [1, 2]
    part.consumer.pause([TopicPartition(topic, 0)])
    produce(config, topic, [3])
    late = deadline(1.5)
    assert poll_until(part, lambda messages: late()) == []  # deaf, and nothing says so
    part.outage.begin(KafkaError(KafkaError._TRANSPORT))
    part.outage.end()
    assert numbers(poll_until(part, bool)) == [3]
    client = part.clients
    late = deadline(2.5)
    assert poll_until(part, lambda messages: late()) == []
    assert part.clients == client  # once an outage
    part.close()


def test_many_partitions_say_goodbye_in_time_to_a_broker_that_is_gone(own_kafka: OwnKafka, tmp_path: Path) -> None:
    with own_kafka(tmp_path / "kafka") as address:
        config = {"bootstrap.servers": address}
        source = KafkaSource(config, new_topic(config, 24), "g")
        parts = [source.build_part("step", part, None) for part in source.list_parts()]
    for part in parts:
        part.snapshot()  # a commit that waits for its answer
    late = deadline(PATIENCE)  # what a flow may take to end
    for part in parts:
        part.close()
    assert not late()
