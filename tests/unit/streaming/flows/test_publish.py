"""Flow `publish`: from three topics into Redis, with restarts, rollbacks, damaged checkpoints and invalid records."""

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
from model.setting_paths import MODEL_GROUPS, values_by_path
from streaming.flows.publish import KINDS, build, restore
from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.source import KafkaSource, read_all
from streaming.records import Tick, Title, UserErasure, Version, to_json, to_msgpack
from streaming.state.publish_settings import PublishSettings
from streaming.state.publisher import Publisher
from streaming.state.title_metadata import title_metadata
from streaming.state.version_loader import Announced
from streaming.stores import list_client
from streaming.stores.redis_lists import RedisSink
from tests.support.publish import NOW, SETTINGS, message, polls, state, world
from tests.support.streams import group_offset, new_topic

ROOMY = PublishSettings(list_size=20, refresh_budget=1e6)


def users() -> list[str]:
    return list(world().newest())


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    """A Redis client. It deletes the keys that these tests write before and after each test."""
    client = Redis.from_url(redis_url, decode_responses=True)
    keys = [*map(list_client.key, users()), list_client.key(None)]
    keys += [list_client.withdrawn_key(), list_client.withdrawn_revision_key()]
    client.delete(*keys)
    yield client
    client.delete(*keys)


@pytest.fixture
def version(tmp_path: Path) -> Version:
    """The record that announces a checkpoint."""
    url = str(tmp_path / "checkpoints" / "000000000030")
    manifest = {"step": 30, "position": 0, "learned": 300, "mrr": 0.1, "created": NOW}
    checkpoint.save(url, state(), {**manifest, "settings": values_by_path(SETTINGS, MODEL_GROUPS)})
    return Version(path=url, step=30, position=0, learned=300, mrr=0.1, created=NOW)


def load(url: str, ahead: Any) -> Recommender:
    version = Recommender.load(url)
    version.update_titles([title_metadata(title) for title in ahead])
    return version


def run(redis_url: str, publisher: Publisher, activity: Any, titles: Any, versions: Any, **options: Any) -> None:
    flow = build(
        activity=activity,
        titles=titles,
        versions=versions,
        lists=RedisSink(redis_url, log_identity="test", clock=lambda: NOW / 1000),
        publisher=publisher,
        load=load,
        clock=lambda: NOW / 1000,
        **options,
    )
    run_main(flow, epoch_interval=timedelta(milliseconds=50))


def served(client: Redis) -> dict[str, Any]:
    keys = [list_client.key(None), *map(list_client.key, users())]
    return {key: client.hgetall(key) for key in keys}


def log(start: int = 0, stop: int | None = None) -> list[bytes]:
    return [to_msgpack(record) for record in world().activities[start:stop]]


def messages(topic: str, values: list[bytes]) -> list[Any]:
    return [message(topic, offset, value) for offset, value in enumerate(values)]


def commit_positions() -> dict[str, CommitPosition]:
    return {kind: CommitPosition() for kind in KINDS}


def test_lists_of_all_users_are_in_redis(client: Redis, redis_url: str, version: Version) -> None:
    titles = messages("titles", [to_msgpack(title) for title in world().titles])
    versions = messages("model-versions", [to_json(version)])
    positions = commit_positions()
    activity = polls(messages("activity", log()), [], [])
    run(redis_url, Publisher(ROOMY), activity, polls(titles), polls(versions), commit_positions=positions)
    for user in users():
        fields = client.hgetall(list_client.key(user))
        newest = world().newest()[user]
        assert (fields["version"], fields["events"]) == ("0", str(newest.count))  # type: ignore[index]
        assert len(list_client.read(client, user)) > 0
        assert not set(list_client.read(client, user)) & set(newest.titles)
    assert len(list_client.read(client, "unknown user")) == 20
    assert positions["titles"].get(0) == len(titles)


def test_undecodable_records_are_skipped(client: Redis, redis_url: str, version: Version) -> None:
    titles = messages("titles", [b"?", *(to_msgpack(title) for title in world().titles)])
    versions = messages("model-versions", [b"{}", to_json(version)])
    activity = messages("activity", [b"", to_msgpack(Tick(ts=1)), to_msgpack(world().titles[0]), *log()])
    run(redis_url, Publisher(ROOMY), polls(activity), polls(titles), polls(versions))
    assert {client.hget(list_client.key(user), "version") for user in users()} == {"1"}


def test_damaged_version_is_replaced_by_the_one_before(client: Redis, redis_url: str, version: Version) -> None:
    missing = variant(version, path=version.path + "-missing")
    announced = [Announced(4, version), Announced(5, missing), Announced(6, missing)]
    publisher = Publisher(ROOMY)
    run(redis_url, publisher, polls([], messages("activity", log())), polls([]), polls([]), announced=announced)
    assert publisher.version == 4
    assert client.hget(list_client.key(None), "version") == "4"


def variant(version: Version, **fields: Any) -> Version:
    return structs.replace(version, **fields)


def test_rollback_holds_back_later_versions_until_a_rollforward(
    client: Redis, redis_url: str, version: Version
) -> None:
    later = variant(version, step=31)
    rollback = variant(version, cause="rollback", original_version=4)
    announced = [Announced(4, version), Announced(5, later), Announced(6, rollback), Announced(7, later)]
    numbers = []
    for more in (
        [],
        [Announced(8, variant(version, step=32, cause="rollforward", original_version=7))],
        [Announced(9, later)],
    ):
        announced += more  # each time a new process: an active rollback survives a restart
        publisher = Publisher(ROOMY)
        run(redis_url, publisher, polls([], messages("activity", log())), polls([]), polls([]), announced=announced)
        numbers.append(publisher.version)
        assert client.hget(list_client.key(None), "version") == str(publisher.version)
    assert numbers == [6, 8, 9]


def test_rollback_is_active_after_many_later_versions(client: Redis, redis_url: str, version: Version) -> None:
    learned = [Announced(n, variant(version, step=30 + n)) for n in range(100)]
    learned[40] = Announced(40, variant(version, step=60, cause="rollback", original_version=30))
    publisher = Publisher(ROOMY)
    run(redis_url, publisher, polls([], messages("activity", log())), polls([]), polls([]), announced=learned)
    assert publisher.version == 40


def test_damaged_rollback_version_is_replaced_by_an_earlier_one(
    client: Redis, redis_url: str, version: Version
) -> None:
    damaged = variant(version, path=version.path + "-missing", cause="rollback", step=31, original_version=5)
    announced = [
        Announced(4, version),
        Announced(5, variant(version, step=31)),
        Announced(6, variant(version, step=40)),
    ]
    publisher = Publisher(ROOMY)
    announced += [Announced(7, damaged), Announced(8, variant(version, step=41))]
    run(redis_url, publisher, polls([], messages("activity", log())), polls([]), polls([]), announced=announced)
    assert publisher.version == 4


def test_rollback_wins_over_a_version_that_is_being_loaded(client: Redis, redis_url: str, version: Version) -> None:
    versions = [
        variant(version, step=31),
        variant(version, cause="rollback", original_version=0),
        variant(version, step=32),
    ]
    titles = messages("titles", [to_msgpack(title) for title in world().titles])
    version_polls = polls(
        *([message("model-versions", n, to_json(record))] for n, record in enumerate([version, *versions])), []
    )
    publisher = Publisher(ROOMY)
    run(redis_url, publisher, polls(messages("activity", log())), polls(titles), version_polls)
    assert publisher.version == 2


def test_nothing_is_written_before_the_first_version(client: Redis, redis_url: str) -> None:
    titles = messages("titles", [to_msgpack(title) for title in world().titles])
    run(redis_url, Publisher(ROOMY), polls(messages("activity", log())), polls(titles), polls([]))
    assert not any(served(client).values())


class Topics:
    """The three topics on a real broker, with unique names."""

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
        """One process: it restores its caches from the topics, and finds nothing new."""
        publisher = Publisher(ROOMY)
        existing = {name: list(read_all(self.config, name)) for name in (self.titles, self.activity, self.versions)}
        announced = restore(publisher, existing[self.titles], existing[self.activity], existing[self.versions])
        positions = commit_positions()
        sources = [
            KafkaSource(
                self.config,
                name,
                self.group,
                start={0: len(existing[name])},
                tail=False,
                idle=timedelta(0),
                position=positions[kind],
            )
            for name, kind in ((self.activity, "activity"), (self.titles, "titles"), (self.versions, "versions"))
        ]
        run(redis_url, publisher, *sources, announced=announced, commit_positions=positions)
        for source in sources:
            source.commit()


def test_restart_restores_the_same_lists_from_the_topics(
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
    assert [int(client.hget(list_client.key(user), "events") or 0) for user in users()] == [  # type: ignore[arg-type]
        newest[user].count for user in users()
    ]


def test_user_erased_while_publish_was_down_is_a_tombstone_after_the_restart(
    kafka: str, client: Redis, redis_url: str, version: Version
) -> None:
    topics, (user, other, *_) = Topics(kafka), users()
    topics.produce(topics.titles, [to_msgpack(title) for title in world().titles])
    topics.produce(topics.activity, log())
    topics.produce(topics.versions, [to_json(version)])
    topics.run(redis_url)
    first = served(client)
    topics.produce(topics.activity, [to_msgpack(UserErasure(user=user, partition=0, offset=1000, appended=NOW + 1000))])
    for _ in range(2):
        topics.run(redis_url)
        assert set(client.hgetall(list_client.key(user))) == {"log", "revision"}  # type: ignore[arg-type]
        # The other user has lists still. They may change, because the erased user is no neighbor any more.
        assert served(client)[list_client.key(other)]["revision"] == first[list_client.key(other)]["revision"]
        assert len(list_client.read(client, other)) == 20
        assert list_client.read(client, user) == list_client.read(client, "unknown user")


def test_group_commits_what_is_written(kafka: str, client: Redis, redis_url: str, version: Version) -> None:
    topics = Topics(kafka)
    publisher, positions = Publisher(ROOMY), commit_positions()
    topics.produce(topics.activity, log())
    topics.produce(topics.titles, [to_msgpack(title) for title in world().titles])
    topics.produce(topics.versions, [to_json(version)])
    kinds = {"activity": topics.activity, "titles": topics.titles, "versions": topics.versions}
    sources = {
        kind: KafkaSource(topics.config, name, topics.group, tail=False, position=positions[kind], batch=50)
        for kind, name in kinds.items()
    }
    run(redis_url, publisher, *sources.values(), commit_positions=positions)
    for source in sources.values():
        source.commit()
    committed = {kind: group_offset(topics.config, topics.group, name) for kind, name in kinds.items()}
    assert committed["titles"] == len(world().titles)
    assert committed["versions"] == 1
    assert 0 < committed["activity"] <= len(world().activities)


def test_restored_title_equals_the_written_one() -> None:
    title = world().titles[0]
    assert isinstance(title, Title)
    publisher = Publisher(ROOMY)
    restore(publisher, messages("titles", [to_msgpack(title)]), [], [])
    assert dict(publisher.titles.titles.items()) == {title.title: title}
    assert publisher.titles.newer_than(0) == []  # a version trained on the whole log knows it
