"""Creating, deleting and identifying topics."""

import uuid
from pathlib import Path

import pytest

from infra.errors import TopicError
from infra.local.embedded import start_kafka
from infra.topics import create_topics, log_identity, partition_counts, temporary_topics
from streaming.topics import Topic, topics


def _named(*topics: Topic) -> list[Topic]:
    """These topics under names that only this test uses."""
    suffix = uuid.uuid4().hex[:8]
    return [topic._replace(name=f"{topic.name}-{suffix}") for topic in topics]


def test_creating_topics_is_idempotent(kafka: str) -> None:
    config, wanted = {"bootstrap.servers": kafka}, _named(*topics(event_partitions=3))
    assert create_topics(config, wanted) == [topic.name for topic in wanted]
    assert create_topics(config, wanted) == []
    found = partition_counts(config)
    assert {topic.name: found[topic.name] for topic in wanted} == {topic.name: topic.partitions for topic in wanted}


def test_partition_count_mismatch_is_an_error_with_remedy(kafka: str) -> None:
    config, (topic,) = {"bootstrap.servers": kafka}, _named(Topic("user-events", 3, {}))
    create_topics(config, [topic])
    with pytest.raises(TopicError, match=r"has 3 partitions instead of 8.*PREMIERE_EVENT_PARTITIONS=3"):
        create_topics(config, [topic._replace(partitions=8)])
    assert partition_counts(config)[topic.name] == 3


def test_topic_whose_producers_set_the_record_time_is_refused(kafka_home: Path, tmp_path: Path) -> None:
    with start_kafka(tmp_path, kafka_home, "apache") as address:
        config, by_producer = {"bootstrap.servers": address}, Topic("user-events", 1, {})
        by_broker = Topic("user-events", 1, {"message.timestamp.type": "LogAppendTime"})
        create_topics(config, [by_producer])
        with pytest.raises(TopicError, match=r"user-events has message.timestamp.type=CreateTime.*kafka-configs.sh"):
            create_topics(config, [by_broker])
        create_topics(config, [by_broker._replace(name="other")])
        assert create_topics(config, [by_broker._replace(name="other")]) == []


def test_temporary_topics_are_deleted_and_existing_ones_refused(kafka: str) -> None:
    config, (mine, theirs) = {"bootstrap.servers": kafka}, _named(Topic("mine", 2, {}), Topic("theirs", 1, {}))
    for _ in range(2):
        with temporary_topics(config, [mine]):
            assert partition_counts(config)[mine.name] == 2
        assert mine.name not in partition_counts(config)
    create_topics(config, [theirs])
    with (
        pytest.raises(TopicError, match=rf"already has a topic {theirs.name}.*unset"),
        temporary_topics(config, [theirs]),
    ):
        pass
    assert theirs.name in partition_counts(config)


def test_log_identity_differs_between_topics(kafka: str) -> None:
    config, (one, other) = {"bootstrap.servers": kafka}, _named(Topic("one", 1, {}), Topic("other", 1, {}))
    create_topics(config, [one, other])
    assert log_identity(config, [one.name]) == log_identity(config, [one.name])
    assert log_identity(config, [one.name]) != log_identity(config, [other.name])


def test_missing_topic_is_named_in_the_error(kafka: str) -> None:
    (missing,) = _named(Topic("missing", 1, {}))
    with pytest.raises(TopicError, match=r"missing-.*premiere topics --create"):
        log_identity({"bootstrap.servers": kafka}, [missing.name])


def test_unreachable_broker_is_a_topic_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.topics.ADMIN_TIMEOUT_S", 0.5)
    with pytest.raises(TopicError, match=r"No Kafka answers at 127\.0\.0\.1:1 "):
        partition_counts({"bootstrap.servers": "127.0.0.1:1", "log_level": "0"})
