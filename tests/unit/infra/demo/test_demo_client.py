"""Portraits of users, by title name, from lists in a real Redis."""

import json
from collections.abc import Iterator

import pytest
from redis import Redis

from features.redis_address import connect
from infra.data.datasets import Dataset
from infra.data.simulate import simulate
from infra.demo.demo_client import DemoUsers, ListClient, display_name
from infra.local.embedded import start_redis
from streaming.records import Launch
from streaming.stores.list_client import key


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with start_redis(tmp_path_factory.mktemp("redis")) as url:
        client = connect(url)
        yield client
        client.close()


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate(users=20, titles=80, events=600, days=60, seed=2)


def put(redis: Redis, user: str | None, lists: dict[int, list[str]], events: int) -> None:
    redis.delete(key(user))
    redis.hset(key(user), mapping={f"horizon:{h}": json.dumps(titles) for h, titles in lists.items()})
    redis.hset(key(user), "events", str(events))


def test_list_client_picks_the_horizon_that_has_passed(redis: Redis) -> None:
    put(redis, "ann", {0: ["now"], 3: ["soon"], 10: ["later"]}, events=1)
    client, found = ListClient(redis), []
    for _ in range(13):
        client.sent("ann")
        found += client.serve("ann")
    assert found == ["now"] * 3 + ["soon"] * 7 + ["later"] * 3
    assert client.missing_events == dict.fromkeys(range(13), 1)


def test_reading_a_portrait_is_not_counted_as_served(redis: Redis) -> None:
    client = ListClient(redis)
    client.read("ann")
    assert not client.missing_events


def test_portrait_shows_names_and_marks_new_titles(redis: Redis, data: Dataset) -> None:
    client, user = ListClient(redis), data.users[3]
    demo_users = DemoUsers(client, data)
    own = [k for k in range(len(data)) if data.event(k).user == user][:12]
    for _ in own:
        client.sent(user)
    titles = [launch.title for launch in data.launches[:3]]
    put(redis, user, {0: titles[:2]}, events=12)
    first = demo_users.portrait(user)
    assert first.listed == [(demo_users.name(title), False) for title in titles[:2]]
    put(redis, user, {0: titles[1:]}, events=12)
    assert demo_users.portrait(user).listed == [
        (demo_users.name(titles[1]), False),
        (demo_users.name(titles[2]), True),
    ]
    assert list(first.recent_titles) == [demo_users.name(data.event(k).title) for k in reversed(own)][:10]
    assert demo_users.events(user) == 12


def test_title_without_a_name_is_shown_by_its_id(redis: Redis, data: Dataset) -> None:
    assert DemoUsers(ListClient(redis), data).name("nobody described it") == "nobody described it"
    assert display_name(Launch(title="7")) == "7"
    assert display_name(Launch(title="7", name="Up", year=2009)) == "Up (2009)"
    assert display_name(Launch(title="7", name="Up (2009)", year=2009)) == "Up (2009)"


def test_most_active_users_and_one_new_user_are_chosen(redis: Redis, data: Dataset) -> None:
    first, until = 300, len(data)
    client = ListClient(redis)
    for user in data.users:
        client.sent(user)
    chosen = DemoUsers(client, data).most_active(first, until)
    old = set(data.user[:first].tolist())
    rows = [data.users.index(user) for user in chosen]
    assert len(set(chosen)) == len(chosen) == 4
    assert rows[-1] not in old  # this part has new users
    counts = [int((data.user[first:until] == row).sum()) for row in rows[:3]]
    assert counts == sorted(counts, reverse=True)
