"""Reading lists from a real Redis: horizons, the default list, withdrawn titles, and the imports of the module."""

import subprocess
import sys
import uuid
from collections.abc import Sequence

import pytest
from redis import Redis

from streaming.stores.list_client import Revision, key, read, read_revision, withdrawn_key
from streaming.stores.redis_lists import Prediction, RedisSink, RedisWrite, WithdrawnTitles


@pytest.fixture
def client(redis_url: str) -> Redis:
    """A client that decodes responses to text."""
    return Redis.from_url(redis_url, decode_responses=True)


@pytest.fixture
def user() -> str:
    """A user id that no other test uses."""
    return f"user-{uuid.uuid4().hex[:8]}"


def prediction(user: str | None, titles: Sequence[str], lists: dict[int, list[str]] | None = None) -> Prediction:
    return Prediction(user, lists or {0: list(titles)}, version=0, revision=(1, 1, 0, 0), events=1, event_ms=0)


def write(redis_url: str, *writes: RedisWrite) -> None:
    partition = RedisSink(redis_url, log_identity="log-1").build_part("lists", "0", None)
    partition.write_batch([list(writes)])
    partition.close()


@pytest.mark.parametrize(("since", "horizon"), [(0, 0), (2, 0), (3, 3), (9, 3), (10, 10), (500, 10)])
def test_read_takes_the_longest_horizon_that_has_passed(
    client: Redis, redis_url: str, user: str, since: int, horizon: int
) -> None:
    write(redis_url, prediction(user, [], {h: [f"after {h}"] for h in (0, 3, 10)}))
    assert read(client, user, since) == [f"after {horizon}"]


def test_unknown_user_gets_the_default_list(client: Redis, redis_url: str, user: str) -> None:
    client.delete(key(None))
    assert read(client, user) == []
    write(redis_url, prediction(None, ["a", "b"]))
    assert read(client, user) == ["a", "b"]


def test_withdrawn_titles_are_left_out(client: Redis, redis_url: str, user: str) -> None:
    titles = [f"{user}-{n}" for n in range(3)]
    write(redis_url, prediction(user, titles), WithdrawnTitles(frozenset(titles[1:2])))
    assert read(client, user) == [titles[0], titles[2]]
    write(redis_url, WithdrawnTitles(frozenset()))
    assert read(client, user) == titles
    assert not client.exists(withdrawn_key())


def test_client_that_returns_bytes_can_read(redis_url: str, user: str) -> None:
    write(redis_url, prediction(user, ["ä"]), WithdrawnTitles(frozenset()))
    client = Redis.from_url(redis_url)
    assert read(client, user) == ["ä"]
    assert read_revision(client, user) == ("log-1", Revision(1, 1, 0, 0))


def test_revision_is_read_with_its_log(client: Redis, redis_url: str, user: str) -> None:
    assert read_revision(client, user) is None
    write(redis_url, prediction(user, ["a"]))
    assert read_revision(client, user) == ("log-1", Revision(appended=1, event_offset=1, version=0, title_stamp=0))
    client.delete(key(user))


def test_module_imports_only_redis_and_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import redis; import streaming.stores.list_client;"
        "names = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(names & {'bytewax', 'confluent_kafka', 'feast', 'model', 'numpy', 'prometheus_client', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
