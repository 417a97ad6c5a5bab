"""The flow as it runs: from three topics into Redis, through restarts, damaged checkpoints and unreadable records."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax.testing import run_main
from confluent_kafka import Producer
from msgspec import structs
from redis import Redis

from model import checkpoint
from model.recommender import Recommender
from streaming.flows.publish import Announced, build, restore
from streaming.kafka.source import KafkaSource, read_all
from streaming.records import Forgotten, Tick, Title, Version, to_json, to_msgpack
from streaming.state.log_learner import title_metadata
from streaming.state.publisher import Publisher, PublishSettings
from streaming.stores import redis_lists
from streaming.stores.redis_lists import RedisSink, read
from tests.support.publish import NOW, SETTINGS, message, polls, state, world
from tests.support.streams import group_offset, new_topic

ROOMY = PublishSettings(size=20, budget=1e6)


def users() -> list[str]:
    return list(world().newest())


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    """A client; what these tests write under fixed names is gone afterwards."""
    client = Redis.from_url(redis_url, decode_responses=True)
    mine = [*map(redis_lists.key, users()), redis_lists.DEFAULT, redis_lists.WITHDRAWN]
    client.delete(*mine)
    yield client
    client.delete(*mine)


@pytest.fixture
def version(tmp_path: Path) -> Version:
    """A checkpoint, as it is announced."""
    url = str(tmp_path / "checkpoints" / "000000000030")
    checkpoint.save(url, state(), {"step": 30, "position": 0, "learned": 300, "mrr": 0.1, "created": NOW})
    return Version(path=url, step=30, position=0, learned=300, mrr=0.1, created=NOW)


def load(url: str, ahead: Any) -> Recommender:
    version = Recommender.load(url, SETTINGS)
    version.add([title_metadata(title) for title in ahead])
    return version


def run(redis_url: str, publisher: Publisher, activity: Any, titles: Any, versions: Any, **more: Any) -> None:
    flow = build(
        activity=activity,
        titles=titles,
        versions=versions,
        predictions=RedisSink(redis_url, identity="test", clock=lambda: NOW / 1000),
        publisher=publisher,
        load=load,
        clock=lambda: NOW / 1000,
        **more,
    )
    run_main(flow, epoch_interval=timedelta(milliseconds=50))


def served(client: Redis) -> dict[str, Any]:
    keys = [redis_lists.DEFAULT, *map(redis_lists.key, users())]
    return {key: client.hgetall(key) for key in keys}


def log(start: int = 0, stop: int | None = None) -> list[bytes]:
    return [to_msgpack(one) for one in world().activities[start:stop]]


def messages(topic: str, values: list[bytes]) -> list[Any]:
    return [message(topic, offset, value) for offset, value in enumerate(values)]


def test_what_is_done_launched_and_learned_lies_in_redis(client: Redis, redis_url: str, version: Version) -> None:
    titles = messages("titles", [to_msgpack(title) for title in world().titles])
    versions = messages("model-versions", [to_json(version)])
    durable: dict[str, dict[int, int]] = {}
    activity = polls(messages("activity", log()), [], [])
    run(redis_url, Publisher(ROOMY), activity, polls(titles), polls(versions), durable=durable)
    for user in users():
        fields = client.hgetall(redis_lists.key(user))
        newest = world().newest()[user]
        assert (fields["version"], fields["events"]) == ("0", str(newest.count))  # type: ignore[index]
        assert len(read(client, user)) > 0
        assert not set(read(client, user)) & set(newest.titles)
    assert len(read(client, "a viewer nobody has seen")) == 20
    assert durable["titles"] == {0: len(titles)}


def test_records_that_cannot_be_read_are_passed_over(client: Redis, redis_url: str, version: Version) -> None:
    titles = messages("titles", [b"?", *(to_msgpack(title) for title in world().titles)])
    versions = messages("model-versions", [b"{}", to_json(version)])
    activity = messages("activity", [b"", to_msgpack(Tick(ts=1)), to_msgpack(world().titles[0]), *log()])
    run(redis_url, Publisher(ROOMY), polls(activity), polls(titles), polls(versions))
    assert {client.hget(redis_lists.key(user), "version") for user in users()} == {"1"}


def test_a_damaged_version_is_passed_over_for_the_one_before(client: Redis, redis_url: str, version: Version) -> None:
    torn = Version(**{**{f: getattr(version, f) for f in Version.__struct_fields__}, "path": version.path + "-torn"})
    announced = [Announced(4, version), Announced(5, torn), Announced(6, torn)]
    publisher = Publisher(ROOMY)
    run(redis_url, publisher, polls([], messages("activity", log())), polls([]), polls([]), announced=announced)
    assert publisher.number == 4
    assert client.hget(redis_lists.DEFAULT, "version") == "4"


def again(version: Version, **fields: Any) -> Version:
    return structs.replace(version, **fields)


def test_a_rollback_is_served_and_holds_later_versions_back_until_resumed(
    client: Redis, redis_url: str, version: Version
) -> None:
    later = again(version, step=31)
    back = again(version, cause="rollback", of=4)
    announced = [Announced(4, version), Announced(5, later), Announced(6, back), Announced(7, later)]
    numbers = []
    for more in ([], [Announced(8, again(version, step=32, cause="resume", of=7))], [Announced(9, later)]):
        announced += more  # each time a process of its own: a hold survives a restart
        publisher = Publisher(ROOMY)
        run(redis_url, publisher, polls([], messages("activity", log())), polls([]), polls([]), announced=announced)
        numbers.append(publisher.number)
        assert client.hget(redis_lists.DEFAULT, "version") == str(publisher.number)
    assert numbers == [6, 8, 9]


def test_a_rollback_long_ago_still_holds(client: Redis, redis_url: str, version: Version) -> None:
    learned = [Announced(n, again(version, step=30 + n)) for n in range(100)]
    learned[40] = Announced(40, again(version, step=60, cause="rollback", of=30))
    publisher = Publisher(ROOMY)
    run(redis_url, publisher, polls([], messages("activity", log())), polls([]), polls([]), announced=learned)
    assert publisher.number == 40


def test_where_the_version_rolled_back_to_is_damaged_an_earlier_one_serves_and_never_a_later(
    client: Redis, redis_url: str, version: Version
) -> None:
    torn = again(version, path=version.path + "-torn", cause="rollback", step=31, of=5)
    announced = [Announced(4, version), Announced(5, again(version, step=31)), Announced(6, again(version, step=40))]
    publisher = Publisher(ROOMY)
    given = [*announced, Announced(7, torn), Announced(8, again(version, step=41))]
    run(redis_url, publisher, polls([], messages("activity", log())), polls([]), polls([]), announced=given)
    assert publisher.number == 4


def test_a_rollback_that_comes_while_a_later_version_is_loaded_wins(
    client: Redis, redis_url: str, version: Version
) -> None:
    versions = [again(version, step=31), again(version, cause="rollback", of=0), again(version, step=32)]
    titles = messages("titles", [to_msgpack(title) for title in world().titles])
    told = polls(*([message("model-versions", n, to_json(one))] for n, one in enumerate([version, *versions])), [])
    publisher = Publisher(ROOMY)
    run(redis_url, publisher, polls(messages("activity", log())), polls(titles), told)
    assert publisher.number == 2


def test_before_the_first_version_nothing_is_written(client: Redis, redis_url: str) -> None:
    titles = messages("titles", [to_msgpack(title) for title in world().titles])
    run(redis_url, Publisher(ROOMY), polls(messages("activity", log())), polls(titles), polls([]))
    assert not any(served(client).values())


class Topics:
    """The three topics on a real broker, under names of their own."""

    def __init__(self, kafka: str) -> None:
        self.config = {"bootstrap.servers": kafka}
        self.activity, self.titles, self.versions = (new_topic(self.config, 1) for _ in range(3))
        self.group = f"publish-{uuid.uuid4().hex[:8]}"

    def produce(self, topic: str, values: list[bytes]) -> None:
        producer = Producer(self.config)
        for value in values:
            producer.produce(topic, value, partition=0)
        assert producer.flush(20) == 0

    def run(self, redis_url: str) -> None:
        """A process's life: restore from the topics as they are, then what came since; here nothing."""
        publisher = Publisher(ROOMY)
        history = {name: list(read_all(self.config, name)) for name in (self.titles, self.activity, self.versions)}
        announced = restore(publisher, *history.values())
        durable: dict[str, dict[int, int]] = {"activity": {}, "titles": {}, "versions": {}}
        sources = [
            KafkaSource(
                self.config,
                name,
                self.group,
                start={0: len(history[name])},
                tail=False,
                idle=timedelta(0),
                durable=durable[kind],
            )
            for name, kind in ((self.activity, "activity"), (self.titles, "titles"), (self.versions, "versions"))
        ]
        run(redis_url, publisher, *sources, announced=announced, durable=durable)
        for source in sources:
            source.commit()


def test_a_restart_makes_the_same_lists_from_the_topics(
    kafka: str, client: Redis, redis_url: str, version: Version
) -> None:
    topics = Topics(kafka)
    topics.produce(topics.titles, [to_msgpack(title) for title in world().titles])
    topics.produce(topics.activity, log(stop=250))
    topics.produce(topics.versions, [to_json(version)])
    topics.run(redis_url)
    first = served(client)
    topics.run(redis_url)
    assert served(client) == first
    client.delete(*first)
    topics.run(redis_url)
    assert served(client) == first
    topics.produce(topics.activity, log(start=250))
    topics.run(redis_url)
    newest = world().newest()
    assert [int(client.hget(redis_lists.key(user), "events") or 0) for user in users()] == [  # type: ignore[arg-type]
        newest[user].count for user in users()
    ]


def test_a_viewer_who_was_forgotten_while_nobody_published_is_a_tombstone_after_the_restart(
    kafka: str, client: Redis, redis_url: str, version: Version
) -> None:
    topics, (user, other, *_) = Topics(kafka), users()
    topics.produce(topics.titles, [to_msgpack(title) for title in world().titles])
    topics.produce(topics.activity, log())
    topics.produce(topics.versions, [to_json(version)])
    topics.run(redis_url)
    first = served(client)
    topics.produce(topics.activity, [to_msgpack(Forgotten(user=user, partition=0, offset=1000, appended=NOW))])
    for _ in range(2):
        topics.run(redis_url)
        assert set(client.hgetall(redis_lists.key(user))) == {"log", "revision"}  # type: ignore[arg-type]
        assert served(client)[redis_lists.key(other)] == first[redis_lists.key(other)]
        assert read(client, user) == read(client, "a viewer nobody has seen")


def test_the_group_commits_what_is_written(kafka: str, client: Redis, redis_url: str, version: Version) -> None:
    topics = Topics(kafka)
    publisher, durable = Publisher(ROOMY), {"activity": dict[int, int](), "titles": {}, "versions": {}}
    topics.produce(topics.activity, log())
    topics.produce(topics.titles, [to_msgpack(title) for title in world().titles])
    topics.produce(topics.versions, [to_json(version)])
    kinds = {"activity": topics.activity, "titles": topics.titles, "versions": topics.versions}
    sources = {
        kind: KafkaSource(topics.config, name, topics.group, tail=False, durable=durable[kind], batch=50)
        for kind, name in kinds.items()
    }
    run(redis_url, publisher, *sources.values(), durable=durable)
    for source in sources.values():
        source.commit()
    committed = {kind: group_offset(topics.config, topics.group, name) for kind, name in kinds.items()}
    assert committed["titles"] == len(world().titles)
    assert committed["versions"] == 1
    assert 0 < committed["activity"] <= len(world().activities)


def test_a_title_that_is_read_is_a_title_that_was_written() -> None:
    title = world().titles[0]
    assert isinstance(title, Title)
    publisher = Publisher(ROOMY)
    restore(publisher, messages("titles", [to_msgpack(title)]), [], [])
    assert publisher.titles.known == {title.title: title}
    assert publisher.titles.ahead(0) == []  # a version made of the whole log knows it
