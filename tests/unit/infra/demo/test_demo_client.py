"""Viewers as a person reads them: by name, from the lists that lie in a real Redis."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from infra.data.datasets import DataSet
from infra.data.simulate import simulate
from infra.demo.demo_client import DemoUsers, ListClient, named
from infra.local.embedded import start_redis
from streaming.records import Launch
from streaming.stores.redis_lists import connect, key


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with start_redis(tmp_path_factory.mktemp("redis")) as url:
        client = connect(url)
        yield client
        client.close()


@pytest.fixture(scope="module")
def data() -> DataSet:
    return simulate(users=20, titles=80, events=600, days=60, seed=2)


def put(redis: Redis, user: str | None, lists: dict[int, list[str]], events: int) -> None:
    redis.delete(key(user))
    redis.hset(key(user), mapping={f"horizon:{h}": json.dumps(titles) for h, titles in lists.items()})
    redis.hset(key(user), "events", str(events))


def test_a_client_takes_the_list_of_the_delay_that_has_passed(redis: Redis) -> None:
    put(redis, "ann", {0: ["now"], 3: ["soon"], 10: ["later"]}, events=1)
    client, found = ListClient(redis), []
    for _ in range(13):
        client.sent("ann")
        found += client.serve("ann")
    assert found == ["now"] * 3 + ["soon"] * 7 + ["later"] * 3
    assert client.behind == dict.fromkeys(range(13), 1)


def test_a_look_on_behalf_of_the_screen_is_not_counted(redis: Redis) -> None:
    client = ListClient(redis)
    client.read("ann")
    assert not client.behind


def test_a_viewer_is_shown_by_names_and_what_is_new_on_the_list_is_marked(redis: Redis, data: DataSet) -> None:
    viewers, user = DemoUsers(ListClient(redis), data), data.users[3]
    titles = [launch.title for launch in data.launches[:3]]
    put(redis, user, {0: titles[:2]}, events=9)
    first = viewers.look(user, len(data))
    assert first.listed == [(viewers.name(title), False) for title in titles[:2]]
    put(redis, user, {0: titles[1:]}, events=9)
    assert viewers.look(user, len(data)).listed == [(viewers.name(titles[1]), False), (viewers.name(titles[2]), True)]
    own = [k for k in range(len(data)) if data.event(k).user == user]
    assert list(first.watched) == [viewers.name(data.event(k).title) for k in reversed(own)][:10]
    assert viewers.events(user, own[2]) == 2


def test_a_title_without_a_name_is_shown_by_its_id(redis: Redis, data: DataSet) -> None:
    assert DemoUsers(ListClient(redis), data).name("nobody described it") == "nobody described it"
    assert named(Launch(title="7")) == "7"
    assert named(Launch(title="7", name="Up", year=2009)) == "Up (2009)"
    assert named(Launch(title="7", name="Up (2009)", year=2009)) == "Up (2009)"


def test_the_busiest_viewers_are_chosen_and_one_who_is_new(redis: Redis, data: DataSet) -> None:
    first, until = 300, len(data)
    chosen = DemoUsers(ListClient(redis), data).lively(first, until)
    old = set(data.user[:first].tolist())
    rows = [data.users.index(user) for user in chosen]
    assert len(set(chosen)) == len(chosen) == 4
    assert rows[-1] not in old  # this part has new viewers
    counts = [int((data.user[first:until] == row).sum()) for row in rows[:3]]
    assert counts == sorted(counts, reverse=True)


def test_data_that_is_named_by_a_setting_is_found_without_fetching(tmp_path: Path) -> None:
    from infra.demo.command import obtain
    from infra.settings import Settings

    (tmp_path / "events.csv").write_text("user,item,ts\na,1,1700000000\n")
    (tmp_path / "titles.csv").write_text("item,title\n1,One\n")
    said: list[str] = []
    found = obtain(Settings(data=tmp_path, data_dir=tmp_path / "own"), None, None, (), said.append)
    assert (found.name, found.simulated, said) == (tmp_path.name, False, [])
