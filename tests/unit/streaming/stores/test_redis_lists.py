"""Predictions in a real Redis: only forward, at once, and what a reader makes of them."""

import json
import threading
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis import Redis

from streaming.stores.redis_lists import (
    DEFAULT,
    LAUNCHES,
    WITHDRAWN,
    Erased,
    Item,
    Placed,
    Prediction,
    RedisGoneError,
    RedisSink,
    Withdrawn,
    key,
    read,
    revision,
)

NOW = 1_800_000_000.0  # seconds


@pytest.fixture
def client(redis_url: str) -> Redis:
    """A client that sees text."""
    return Redis.from_url(redis_url, decode_responses=True)


@pytest.fixture
def user() -> str:
    """A viewer of this test's own."""
    return f"viewer-{uuid.uuid4().hex[:8]}"


def prediction(
    user: str | None, titles: Sequence[str], at: tuple[int, int, int] = (1, 0, 0), **more: Any
) -> Prediction:
    fields: dict[str, Any] = {"version": at[1], "events": 1, "event_ms": 0, "lists": {0: list(titles)}, **more}
    return Prediction(user=user, revision=at, **fields)


def write(redis_url: str, *items: Item, **settings: Any) -> None:
    part = RedisSink(redis_url, clock=lambda: NOW, **settings).build_part("predictions", "0", None)
    part.write_batch([list(items)])
    part.close()


def test_a_prediction_is_a_hash_that_anybody_can_read(client: Redis, redis_url: str, user: str) -> None:
    lists = {0: ["a", "ö"], 3: ["b"]}
    write(redis_url, prediction(user, [], (7, 2, 5), lists=lists, events=4, event_ms=9), identity="log-1")
    assert client.hgetall(key(user)) == {
        "horizon:0": '["a","ö"]',
        "horizon:3": '["b"]',
        "format": "1",
        "version": "2",
        "revision": f"{7:020d}.{2:020d}.{5:020d}",
        "log": "log-1",
        "events": "4",
        "event_ms": "9",
        "written_ms": "1800000000000",
    }


@pytest.mark.parametrize(
    ("older", "newer"),
    [((9, 0, 0), (10, 0, 0)), ((9, 8, 8), (10, 0, 0)), ((5, 9, 7), (5, 10, 0)), ((5, 5, 99), (5, 5, 100))],
)
def test_an_older_revision_never_overwrites_a_newer_one(
    client: Redis, redis_url: str, user: str, older: tuple[int, int, int], newer: tuple[int, int, int]
) -> None:
    first, second = prediction(user, ["old"], older), prediction(user, ["new"], newer)
    for order in ((first, second), (second, first), (first, second, first)):
        client.delete(key(user))
        write(redis_url, *order)
        assert read(client, user) == ["new"]
        assert client.hget(key(user), "revision") == revision(newer)


def test_the_same_revision_again_renews_the_key(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, prediction(user, ["a"]), ttl=timedelta(seconds=100))
    write(redis_url, prediction(user, ["a"]), ttl=timedelta(seconds=1000))
    assert int(client.ttl(key(user))) > 500  # type: ignore[arg-type]


def test_revisions_of_another_log_do_not_hold_anything_back(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, prediction(user, ["a"], (99, 9, 9)), identity="the broker before")
    write(redis_url, prediction(user, ["b"], (1, 0, 0)), identity="this broker")
    assert read(client, user) == ["b"]


def test_a_list_that_is_no_more_is_gone(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, prediction(user, [], (1, 0, 0), lists={0: ["a"], 3: ["b"]}))
    write(redis_url, prediction(user, [], (2, 0, 0), lists={0: ["c"]}))
    assert read(client, user, 5) == ["c"]


def test_keys_expire_but_not_all_at_once(client: Redis, redis_url: str, user: str) -> None:
    users = [f"{user}-{n}" for n in range(40)]
    write(redis_url, *(prediction(one, ["a"]) for one in users), ttl=timedelta(seconds=10_000))
    left = [int(client.ttl(key(one))) for one in users]  # type: ignore[arg-type]
    assert all(8_900 <= seconds <= 11_000 for seconds in left)
    assert max(left) - min(left) > 1_000


@pytest.mark.parametrize(("since", "horizon"), [(0, 0), (2, 0), (3, 3), (9, 3), (10, 10), (500, 10)])
def test_a_reader_takes_the_longest_horizon_that_has_passed(
    client: Redis, redis_url: str, user: str, since: int, horizon: int
) -> None:
    write(redis_url, prediction(user, [], lists={h: [f"after {h}"] for h in (0, 3, 10)}))
    assert read(client, user, since) == [f"after {horizon}"]


def test_a_viewer_nobody_has_seen_gets_the_default(client: Redis, redis_url: str, user: str) -> None:
    client.delete(DEFAULT)
    assert read(client, user) == []
    write(redis_url, prediction(None, ["a", "b"]))
    assert read(client, user) == ["a", "b"]


def test_a_forgotten_viewers_tombstone_lets_only_what_is_newer_through(
    client: Redis, redis_url: str, user: str
) -> None:
    write(redis_url, prediction(None, ["a", "b"]), Withdrawn(frozenset()))
    write(redis_url, prediction(user, ["mine"], (8, 3, 5)), identity="log-1")
    write(redis_url, Erased(user, 9), prediction(user, ["mine"], (8, 9, 9)), identity="log-1")
    assert client.hgetall(key(user)) == {"log": "log-1", "revision": revision((9, 0, 0))}
    assert 0.8 < int(client.ttl(key(user))) / (30 * 86_400) < 1.2  # type: ignore[arg-type]
    assert read(client, user) == ["a", "b"]
    write(redis_url, prediction(user, ["new"], (11, 0, 0)), Erased(user, 9), identity="log-1")
    assert read(client, user) == ["new"]


def test_withdrawn_titles_vanish_for_readers_until_they_come_back(client: Redis, redis_url: str, user: str) -> None:
    mine = [f"{user}-{n}" for n in range(3)]
    write(redis_url, prediction(user, mine), Withdrawn(frozenset(mine[1:2])))
    assert read(client, user) == [mine[0], mine[2]]
    write(redis_url, Withdrawn(frozenset()))
    assert read(client, user) == mine
    assert not client.exists(WITHDRAWN)


def test_a_reader_may_use_a_client_of_bytes(redis_url: str, user: str) -> None:
    write(redis_url, prediction(user, ["ä"]), Withdrawn(frozenset()))
    assert read(Redis.from_url(redis_url), user) == ["ä"]


def test_a_redis_that_forgot_its_scripts_is_told_them_again(client: Redis, redis_url: str, user: str) -> None:
    part = RedisSink(redis_url).build_part("predictions", "0", None)
    part.write_batch([[prediction(user, ["a"], (1, 0, 0))]])
    client.script_flush()
    part.write_batch([[prediction(user, ["b"], (2, 0, 0)), Withdrawn(frozenset())]])
    assert read(client, user) == ["b"]


def test_many_at_once_arrive_all(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, *(prediction(f"{user}-{n}", [str(n)]) for n in range(700)))
    assert [read(client, f"{user}-{n}") for n in range(700)] == [[str(n)] for n in range(700)]


def test_without_a_redis_the_flow_waits_a_bounded_time_and_says_what_to_do(user: str) -> None:
    with pytest.raises(RedisGoneError, match="start it again, or correct PREMIERE_REDIS_URL"):
        write("redis://127.0.0.1:1/0", prediction(user, ["a"]), patience=0.2)
    stop = threading.Event()
    stop.set()
    with pytest.raises(RedisGoneError):
        write("redis://127.0.0.1:1/0", prediction(user, ["a"]), stop=stop)


def observed(kind: str) -> tuple[float, float]:
    values = [
        REGISTRY.get_sample_value(f"premiere_freshness_seconds_{part}", {"kind": kind}) for part in ("count", "sum")
    ]
    return values[0] or 0.0, values[1] or 0.0


def test_freshness_is_measured_for_what_was_written_from_append_to_write(redis_url: str, user: str) -> None:
    before = observed("event"), observed("launch")
    ago = round(NOW * 1000) - 250  # ms
    write(
        redis_url,
        prediction(user, ["a"], (5, 0, 0), fresh=(ago, ago), entered=(("a", ago),), cause="event"),
        prediction(user, ["b"], (4, 0, 0), fresh=(ago,), cause="event"),  # older: nobody will see it
    )
    after = observed("event"), observed("launch")
    assert [a[0] - b[0] for a, b in zip(after, before, strict=True)] == [2, 1]
    assert [round(a[1] - b[1], 6) for a, b in zip(after, before, strict=True)] == [0.5, 0.25]


def test_a_listener_hears_which_lists_a_launch_entered(client: Redis, redis_url: str, user: str) -> None:
    channel: Any = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    channel.subscribe(LAUNCHES)
    channel.get_message(timeout=5)
    title = f"title-{user}"
    write(redis_url, prediction(user, [], lists={0: ["a", title], 3: ["a"]}, entered=((title, 1),)), Placed(title, 1))
    heard = [json.loads(channel.get_message(timeout=5)["data"]) for _ in range(2)]
    channel.close()
    done = {"title": title, "entered": 1, "worker": 0, "workers": 1}
    assert heard == [{"title": title, "user": user, "places": {"0": 2}}, done]
