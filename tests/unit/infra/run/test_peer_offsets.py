"""The consumer group of `publish` commits the smallest offset of all workers."""

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from infra.run.peer_offsets import READ_INTERVAL_S, MinOffset, PeerOffsets, worker_group_id
from infra.run.workers import SINGLE_WORKER, Worker
from infra.topics import create_topics
from streaming.kafka.commit_position import CommitPosition
from streaming.topics import Topic
from tests.support.kafka import commit_offset
from tests.support.streams import deadline


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Stops the threads of the test."""
    event = threading.Event()
    yield event
    event.set()


def test_group_commits_smallest_offset_of_all_workers(
    kafka: str, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"bootstrap.servers": kafka}
    topic = f"peers-{uuid.uuid4().hex[:8]}"
    create_topics(config, [Topic(topic, 1, {})])
    monkeypatch.setattr("infra.run.peer_offsets.PUBLISH_GROUP", topic)
    own = CommitPosition({0: 50})
    minimum = MinOffset(own, peers := PeerOffsets(config, [topic], 3, stop), topic)
    commit_offset(kafka, worker_group_id(Worker(1, 3)), topic, 70)
    time.sleep(2 * READ_INTERVAL_S)
    assert minimum.get(0) is None  # the third worker has not committed
    commit_offset(kafka, worker_group_id(Worker(2, 3)), topic, 40)
    wait_for(minimum, 40)
    commit_offset(kafka, worker_group_id(Worker(2, 3)), topic, 90)
    wait_for(minimum, 50)
    own.advance(0, 80)
    assert minimum.get(0) == 70
    assert minimum.get(1) is None
    assert peers.groups == [f"{topic}-1-of-3", f"{topic}-2-of-3"]


def test_stale_client_is_replaced(kafka: str, stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    config, topic, numbers = {"bootstrap.servers": kafka}, f"peers-{uuid.uuid4().hex[:8]}", itertools.count()
    create_topics(config, [Topic(topic, 1, {})])

    class FirstIsStale(Consumer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.number = next(numbers)

        def committed(self, *arguments: Any, **named: Any) -> Any:
            if self.number == 0:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return super().committed(*arguments, **named)

    monkeypatch.setattr("infra.run.peer_offsets.PUBLISH_GROUP", topic)
    monkeypatch.setattr("infra.run.peer_offsets.Consumer", FirstIsStale)
    commit_offset(kafka, worker_group_id(Worker(1, 2)), topic, 70)
    wait_for(MinOffset(CommitPosition({0: 80}), PeerOffsets(config, [topic], 2, stop), topic), 70)


def test_single_worker_commits_own_offset(stop: threading.Event) -> None:
    minimum = MinOffset(CommitPosition({0: 5}), PeerOffsets({}, ["activity"], 1, stop), "activity")
    assert (minimum.get(0), minimum.get(1)) == (5, None)
    assert worker_group_id(SINGLE_WORKER) == worker_group_id(Worker(0, 4)) == "publish"


def wait_for(minimum: MinOffset, offset: int) -> None:
    """Wait until the smallest offset has this value."""
    late = deadline(30)
    while minimum.get(0) != offset:
        assert not late(), minimum.get(0)
        time.sleep(0.1)
