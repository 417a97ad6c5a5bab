"""The topics' settings: partitions, retention and timestamps."""

from streaming.topics import (
    ACTIVITY,
    DEAD_LETTERS,
    ERASURE_REQUESTS,
    OWNERS,
    SCHEMA_VERSIONS,
    TITLE_LAUNCHES,
    TITLE_WITHDRAWALS,
    TITLES,
    USER_EVENTS,
    topics,
)

TOPICS = {topic.name: topic for topic in topics(event_partitions=5)}


PUBLIC = (USER_EVENTS, ERASURE_REQUESTS, TITLE_LAUNCHES, TITLE_WITHDRAWALS)


def test_only_topics_keyed_by_user_have_several_partitions() -> None:
    several = {name: topic.partitions for name, topic in TOPICS.items() if topic.partitions > 1}
    assert several == {USER_EVENTS: 5, ERASURE_REQUESTS: 5}


def test_topics_that_producers_fill_are_bounded_in_bytes() -> None:
    for name in (*PUBLIC, DEAD_LETTERS):
        assert 0 < int(TOPICS[name].config["retention.bytes"]) <= 1 << 32


def test_requests_outlive_the_records_and_dead_letters_that_they_cover() -> None:
    kept = {name: int(topic.config.get("retention.ms", 0)) for name, topic in TOPICS.items()}
    week = 7 * 86_400_000  # that the last segment of a topic may outlive its retention
    for name in (USER_EVENTS, TITLE_LAUNCHES, DEAD_LETTERS):
        assert min(kept[ERASURE_REQUESTS], kept[TITLE_WITHDRAWALS]) > kept[name] + week


def test_every_topic_has_bounded_retention_or_is_compacted() -> None:
    for name, topic in TOPICS.items():
        assert (name in (TITLES, OWNERS)) == (topic.config.get("cleanup.policy") == "compact")
        assert name in (TITLES, OWNERS) or int(topic.config["retention.ms"]) > 0


def test_broker_sets_the_record_time_of_public_topics() -> None:
    for name in PUBLIC:
        assert TOPICS[name].config["message.timestamp.type"] == "LogAppendTime"
    assert "message.timestamp.type" not in TOPICS[ACTIVITY].config  # keeps the time of the flow that writes it


def test_every_topic_with_a_schema_version_exists() -> None:
    assert set(SCHEMA_VERSIONS) <= set(TOPICS)
