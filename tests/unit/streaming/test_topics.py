"""The topics' settings: partitions, retention and timestamps."""

from streaming.topics import ACTIVITY, SCHEMA_VERSIONS, TITLE_LAUNCHES, TITLES, USER_EVENTS, topics

TOPICS = {topic.name: topic for topic in topics(event_partitions=5)}


def test_only_user_events_has_several_partitions() -> None:
    assert {name: topic.partitions for name, topic in TOPICS.items() if topic.partitions > 1} == {USER_EVENTS: 5}


def test_every_topic_has_bounded_retention_or_is_compacted() -> None:
    for name, topic in TOPICS.items():
        assert (name == TITLES) == (topic.config.get("cleanup.policy") == "compact")
        assert name == TITLES or int(topic.config["retention.ms"]) > 0


def test_broker_sets_the_record_time_of_public_topics() -> None:
    for name in (USER_EVENTS, TITLE_LAUNCHES):
        assert TOPICS[name].config["message.timestamp.type"] == "LogAppendTime"
    assert "message.timestamp.type" not in TOPICS[ACTIVITY].config  # keeps the time of the flow that writes it


def test_every_topic_with_a_schema_version_exists() -> None:
    assert set(SCHEMA_VERSIONS) <= set(TOPICS)
