"""What docs/contracts.md promises a reader of Redis: how large a viewer's key is, how long it lives, and that a version
never shows in part."""

import re
import threading
import uuid
from datetime import timedelta
from typing import Any, Final

import pytest
from redis import Redis

from streaming.stores.redis_lists import Prediction, RedisSink, key
from tests.support.docs import CONTRACTS

HORIZONS: Final = (0, 3, 10)
SECTION: Final = " ".join(CONTRACTS.partition("## Predictions in Redis")[2].partition("\n## ")[0].split())


def lists(mark: str, titles: int = 100) -> dict[int, list[str]]:
    """Lists of titles whose ids have eight characters, all different."""
    return {horizon: [f"{mark}{horizon:03d}{place:04d}" for place in range(titles)] for horizon in HORIZONS}


@pytest.fixture
def client(redis_url: str) -> Any:
    return Redis.from_url(redis_url, decode_responses=True)


def test_a_viewers_key_has_the_size_that_is_documented(redis_url: str, client: Any) -> None:
    user = uuid.uuid4().hex
    writer = RedisSink(redis_url, identity="5L6g3nShT-eMCtK--X86sw-2f9c1be0a7d4").build_part("predictions", "0", None)
    writer.write_batch([[Prediction(user, lists("t"), 7, (123_456, 7, 89), 42, 1_700_000_000_000)]])
    used = client.memory_usage(key(user), samples=0)
    client.delete(key(user))
    (told,) = re.findall(r"([\d.]+) KB a viewer", SECTION)
    assert 0.8 * float(told) <= used / 1000 <= 1.1 * float(told)


def test_a_key_lives_for_the_days_that_are_set_give_or_take_a_tenth(redis_url: str, client: Any) -> None:
    users = [uuid.uuid4().hex for _ in range(200)]
    writer = RedisSink(redis_url, ttl=timedelta(days=30)).build_part("predictions", "0", None)
    writer.write_batch([[Prediction(user, lists("t", 1), 1, (0, 1, 0), 1, 0) for user in users]])
    days = [client.ttl(key(user)) / 86_400 for user in users]
    client.delete(*map(key, users))
    assert 26.9 < min(days) < 28
    assert 32 < max(days) < 33.1


def test_while_a_version_changes_a_reader_sees_one_version_whole(redis_url: str, client: Any) -> None:
    user, done = uuid.uuid4().hex, threading.Event()
    writer = RedisSink(redis_url).build_part("predictions", "0", None)

    def write() -> None:
        for version in range(300):
            mark = "ab"[version % 2]
            writer.write_batch([[Prediction(user, lists(mark), version, (0, version, 0), 1, 0)]])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen: dict[str, set[str]] = {}
    reads = torn = 0
    while not done.is_set() or reads < 2:
        found = client.hgetall(key(user))
        if found:
            reads += 1
            marks = {title for horizon in HORIZONS for title in re.findall(r'"([ab])\d', found[f"horizon:{horizon}"])}
            torn += len(marks) != 1
            seen.setdefault(found["version"], set()).update(marks)
    thread.join()
    client.delete(key(user))
    assert torn == 0
    assert len(seen) > 1
    assert all(marks == {"ab"[int(version) % 2]} for version, marks in seen.items())
