"""The order of live events: each user waits for the list after the previous event, with lists in a real Redis."""

import numpy as np
import pytest
from redis import Redis

from features.redis_address import connect
from infra.data.datasets import Dataset
from infra.data.simulate import simulate
from infra.demo.closed_loop import MAX_WAITING, ClosedLoop
from infra.demo.demo_client import ListClient
from streaming.stores.list_client import key

START = 100


@pytest.fixture
def redis(redis_url: str, data: Dataset) -> Redis:
    client = connect(redis_url)
    client.delete(*(key(user, "loop") for user in data.users))
    return client


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate(users=20, titles=80, events=600, days=60, seed=2)


class World:
    """The loop, a clock, and lists that are written on demand."""

    def __init__(self, redis: Redis, data: Dataset, window: int = 50) -> None:
        self.redis, self.data, self.now, self.sent = redis, data, 0.0, list[int]()
        self.client = ListClient(redis, "loop")
        self.loop = ClosedLoop(data, self.client, START, window, timeout_s=2.0, clock=lambda: self.now)

    def take_all(self) -> list[int]:
        """Send every event that may be sent now."""
        taken = list[int]()
        while (index := self.loop.take()) is not None:
            taken.append(index)
            self.client.sent(self.user(index))
        self.sent += taken
        return taken

    def user(self, index: int) -> str:
        return str(self.data.users[self.data.user[index]])

    def write_list(self, user: str) -> None:
        self.redis.hset(key(user, "loop"), "events", str(self.client.sent_events(user)))


def test_each_user_has_one_event_before_the_first_lists(redis: Redis, data: Dataset) -> None:
    world = World(redis, data)
    first = world.take_all()
    assert first[0] == START
    assert len({world.user(index) for index in first}) == len(first) > 5
    assert world.take_all() == []


def test_few_users_wait_at_once(redis: Redis, data: Dataset) -> None:
    world = World(redis, data)
    first = world.take_all()
    assert len(first) == MAX_WAITING
    world.write_list(world.user(first[0]))
    assert len(world.take_all()) == 1


def test_written_list_releases_its_user_only(redis: Redis, data: Dataset) -> None:
    world = World(redis, data)
    first = world.take_all()
    user = world.user(first[2])
    world.write_list(user)
    (index,) = world.take_all()
    assert world.user(index) == user
    assert index == next(k for k in range(first[2] + 1, len(data)) if world.user(k) == user)
    assert world.loop.not_waited == 0


def test_list_that_lacks_an_event_is_waited_for_until_the_timeout(redis: Redis, data: Dataset) -> None:
    world = World(redis, data)
    first = world.take_all()
    world.now = 1.9
    assert world.take_all() == []
    world.now = 2.0
    second = world.take_all()
    released = {world.user(index) for index in second} & {world.user(index) for index in first}
    assert world.loop.not_waited == len(released) > 5


@pytest.mark.parametrize("window", [1, 50, 10_000])
def test_all_events_are_sent_in_the_order_of_each_user_and_within_the_window(
    redis: Redis, data: Dataset, window: int
) -> None:
    world, random = World(redis, data, window), np.random.default_rng(0)
    while len(world.sent) < len(data) - START:
        world.take_all()
        for user in data.users:
            if random.random() < 0.3:
                world.write_list(user)
        world.now += 0.1
    assert sorted(world.sent) == list(range(START, len(data)))
    for user in data.users:
        own = [index for index in world.sent if world.user(index) == user]
        assert own == sorted(own)
    assert all(index - START - position < window for position, index in enumerate(world.sent))
    assert world.loop.take() is None
