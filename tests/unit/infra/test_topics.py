"""Topics are created once, with the partitions and broker settings that the project needs."""

import uuid

import pytest

from infra.errors import TopicError
from infra.topics import borrowed, create, identity, partitions
from streaming.topics import Topic, topics


def _named(*topics: Topic) -> list[Topic]:
    """The same under names of this test's own."""
    mark = uuid.uuid4().hex[:8]
    return [topic._replace(name=f"{topic.name}-{mark}") for topic in topics]


def test_creating_again_changes_nothing(kafka: str) -> None:
    config, wanted = {"bootstrap.servers": kafka}, _named(*topics(event_partitions=3))
    assert create(config, wanted) == [topic.name for topic in wanted]
    assert create(config, wanted) == []
    found = partitions(config)
    assert {topic.name: found[topic.name] for topic in wanted} == {topic.name: topic.partitions for topic in wanted}


def test_another_number_of_partitions_is_an_error_that_names_the_remedy(kafka: str) -> None:
    config, (topic,) = {"bootstrap.servers": kafka}, _named(Topic("user-events", 3, {}))
    create(config, [topic])
    with pytest.raises(TopicError, match=r"has 3 partitions and 8 are asked for.*PREMIERE_EVENT_PARTITIONS=3"):
        create(config, [topic._replace(partitions=8)])
    assert partitions(config)[topic.name] == 3


def test_borrowed_topics_are_there_for_a_while_and_those_of_others_stay(kafka: str) -> None:
    config, (mine, theirs) = {"bootstrap.servers": kafka}, _named(Topic("mine", 2, {}), Topic("theirs", 1, {}))
    for _ in range(2):
        with borrowed(config, [mine]):
            assert partitions(config)[mine.name] == 2
        assert mine.name not in partitions(config)
    create(config, [theirs])
    with pytest.raises(TopicError, match=rf"has a topic {theirs.name} already.*leave out"), borrowed(config, [theirs]):
        pass
    assert theirs.name in partitions(config)


def test_logs_are_told_apart_and_one_log_is_itself(kafka: str) -> None:
    config, (one, other) = {"bootstrap.servers": kafka}, _named(Topic("one", 1, {}), Topic("other", 1, {}))
    create(config, [one, other])
    assert identity(config, [one.name]) == identity(config, [one.name])
    assert identity(config, [one.name]) != identity(config, [other.name])


def test_a_topic_that_is_not_there_is_named(kafka: str) -> None:
    (missing,) = _named(Topic("missing", 1, {}))
    with pytest.raises(TopicError, match=r"missing-.*premiere topics --create"):
        identity({"bootstrap.servers": kafka}, [missing.name])


def test_where_no_broker_answers_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.topics.TIMEOUT", 0.5)
    with pytest.raises(TopicError, match=r"No Kafka answers at 127\.0\.0\.1:1 "):
        partitions({"bootstrap.servers": "127.0.0.1:1", "log_level": "0"})
