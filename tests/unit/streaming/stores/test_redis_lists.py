"""Writing lists to a real Redis: newer revisions win, keys expire, and latency is measured."""

import json
import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis import Redis

from streaming.stores.list_client import Revision, format_revision, key, launch_channel, read
from streaming.stores.redis_lists import (
    MAX_OFFSET,
    ErasedUser,
    LaunchCompleted,
    Prediction,
    RedisSink,
    RedisWrite,
    WithdrawnTitles,
)
from streaming.stores.retry import RedisUnavailableError

NOW = 1_800_000_000.0  # seconds


@pytest.fixture
def client(redis_url: str) -> Redis:
    """A client that decodes responses to text."""
    return Redis.from_url(redis_url, decode_responses=True)


@pytest.fixture
def user() -> str:
    """A user id that no other test uses."""
    return f"user-{uuid.uuid4().hex[:8]}"


def prediction(
    user: str | None, titles: Sequence[str], at: tuple[int, int, int] = (1, 0, 0), **more: Any
) -> Prediction:
    """A prediction; `at` is the offset and append time of the newest event, the version, and the newest stamp."""
    fields: dict[str, Any] = {"version": at[1], "events": 1, "event_ms": 0, "lists": {0: list(titles)}, **more}
    return Prediction(user=user, revision=(at[0], *at), **fields)


def write(redis_url: str, *items: RedisWrite, **settings: Any) -> None:
    part = RedisSink(redis_url, clock=lambda: NOW, **settings).build_part("predictions", "0", None)
    part.write_batch([list(items)])
    part.close()


def test_prediction_is_stored_as_a_hash(client: Redis, redis_url: str, user: str) -> None:
    lists = {0: ["a", "ö"], 3: ["b"]}
    write(redis_url, prediction(user, [], (7, 2, 5), lists=lists, events=4, event_ms=9), log_identity="log-1")
    assert client.hgetall(key(user)) == {
        "horizon:0": '["a","ö"]',
        "horizon:3": '["b"]',
        "format": "1",
        "version": "2",
        "revision": f"{7:020d}.{7:020d}.{2:020d}.{5:020d}",
        "log": "log-1",
        "events": "4",
        "event_ms": "9",
        "written_ms": "1800000000000",
    }


@pytest.mark.parametrize(
    ("older", "newer"),
    [((9, 0, 0), (10, 0, 0)), ((9, 8, 8), (10, 0, 0)), ((5, 9, 7), (5, 10, 0)), ((5, 5, 99), (5, 5, 100))],
)
def test_older_revision_never_overwrites_a_newer_one(
    client: Redis, redis_url: str, user: str, older: tuple[int, int, int], newer: tuple[int, int, int]
) -> None:
    first, second = prediction(user, ["old"], older), prediction(user, ["new"], newer)
    for order in ((first, second), (second, first), (first, second, first)):
        client.delete(key(user))
        write(redis_url, *order)
        assert read(client, user) == ["new"]
        assert client.hget(key(user), "revision") == format_revision(Revision(newer[0], *newer))


def test_rewriting_a_revision_extends_the_expiry(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, prediction(user, ["a"]), ttl=timedelta(seconds=100))
    write(redis_url, prediction(user, ["a"]), ttl=timedelta(seconds=1000))
    assert int(client.ttl(key(user))) > 500  # type: ignore[arg-type]


def test_revision_of_another_log_is_overwritten(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, prediction(user, ["a"], (99, 9, 9)), log_identity="old broker")
    write(redis_url, prediction(user, ["b"], (1, 0, 0)), log_identity="new broker")
    assert read(client, user) == ["b"]


def test_write_removes_lists_of_dropped_horizons(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, prediction(user, [], (1, 0, 0), lists={0: ["a"], 3: ["b"]}))
    write(redis_url, prediction(user, [], (2, 0, 0), lists={0: ["c"]}))
    assert read(client, user, 5) == ["c"]


def test_expiry_times_are_spread(client: Redis, redis_url: str, user: str) -> None:
    users = [f"{user}-{n}" for n in range(40)]
    write(redis_url, *(prediction(one, ["a"]) for one in users), ttl=timedelta(seconds=10_000))
    left = [int(client.ttl(key(one))) for one in users]  # type: ignore[arg-type]
    assert all(8_900 <= seconds <= 11_000 for seconds in left)
    assert max(left) - min(left) > 1_000


def test_tombstone_of_erased_user_blocks_older_writes(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, prediction(None, ["a", "b"]), WithdrawnTitles(frozenset()))
    write(redis_url, prediction(user, ["mine"], (8, 3, 5)), log_identity="log-1")
    write(redis_url, ErasedUser(user, 9), prediction(user, ["mine"], (8, 9, 9)), log_identity="log-1")
    assert client.hgetall(key(user)) == {"log": "log-1", "revision": format_revision(Revision(9, MAX_OFFSET, 0, 0))}
    assert 0.8 < int(client.ttl(key(user))) / (30 * 86_400) < 1.2  # type: ignore[arg-type]
    assert read(client, user) == ["a", "b"]
    write(redis_url, prediction(user, ["same time"], (9, 9, 9)), log_identity="log-1")
    assert read(client, user) == ["a", "b"]
    write(redis_url, prediction(user, ["new"], (11, 0, 0)), ErasedUser(user, 9), log_identity="log-1")
    assert read(client, user) == ["new"]


def test_erased_user_without_lists_leaves_no_key(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, ErasedUser(user, 9))
    assert not client.exists(key(user))


def test_lists_of_a_recreated_topic_replace_those_of_the_old_one(client: Redis, redis_url: str, user: str) -> None:
    old, new = prediction(user, ["old"], (900, 3, 5)), prediction(user, ["new"], (0, 3, 5))
    write(redis_url, replace(old, revision=(1_000, 900, 3, 5)), replace(new, revision=(2_000, 0, 3, 5)))
    assert read(client, user) == ["new"]


def test_scripts_are_reloaded_after_a_redis_restart(client: Redis, redis_url: str, user: str) -> None:
    part = RedisSink(redis_url).build_part("predictions", "0", None)
    part.write_batch([[prediction(user, ["a"], (1, 0, 0))]])
    client.script_flush()
    part.write_batch([[prediction(user, ["b"], (2, 0, 0)), WithdrawnTitles(frozenset())]])
    assert read(client, user) == ["b"]


def test_more_writes_than_a_round_trip_all_arrive(client: Redis, redis_url: str, user: str) -> None:
    write(redis_url, *(prediction(f"{user}-{n}", [str(n)]) for n in range(700)))
    assert [read(client, f"{user}-{n}") for n in range(700)] == [[str(n)] for n in range(700)]


def test_redis_outage_ends_the_flow_after_a_bounded_time(user: str) -> None:
    with pytest.raises(RedisUnavailableError, match="PREMIERE_REDIS_URL"):
        write("redis://127.0.0.1:1/0", prediction(user, ["a"]), max_outage_s=0.2)
    stop = threading.Event()
    stop.set()
    with pytest.raises(RedisUnavailableError):
        write("redis://127.0.0.1:1/0", prediction(user, ["a"]), stop=stop)


def observed(kind: str) -> tuple[float, float]:
    values = [
        REGISTRY.get_sample_value(f"premiere_end_to_end_latency_seconds_{part}", {"kind": kind})
        for part in ("count", "sum")
    ]
    return values[0] or 0.0, values[1] or 0.0


def test_latency_is_measured_from_append_time_to_write(redis_url: str, user: str) -> None:
    before = observed("event"), observed("launch")
    ago = round(NOW * 1000) - 250  # ms
    write(
        redis_url,
        prediction(user, ["a"], (5, 0, 0), new_events=(ago, ago), entered=(("a", ago),), cause="event"),
        prediction(user, ["b"], (4, 0, 0), new_events=(ago,), cause="event"),  # older: not written
    )
    after = observed("event"), observed("launch")
    assert [a[0] - b[0] for a, b in zip(after, before, strict=True)] == [2, 1]
    assert [round(a[1] - b[1], 6) for a, b in zip(after, before, strict=True)] == [0.5, 0.25]


def test_launch_channel_reports_entered_lists(client: Redis, redis_url: str, user: str) -> None:
    channel: Any = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    channel.subscribe(launch_channel())
    channel.get_message(timeout=5)
    title = f"title-{user}"
    write(
        redis_url,
        prediction(user, [], lists={0: ["a", title], 3: ["a"]}, entered=((title, 1),)),
        LaunchCompleted(title, 1),
    )
    messages = [json.loads(channel.get_message(timeout=5)["data"]) for _ in range(2)]
    channel.close()
    done = {"title": title, "entered": 1, "worker": 0, "workers": 1}
    assert messages == [{"title": title, "user": user, "positions": {"0": 2}}, done]
