"""The promises of docs/contracts.md to readers of Redis: size and expiry of a key, and atomic changes of version."""

import re
import threading
import uuid
from datetime import timedelta
from typing import Any, Final

import pytest
from redis import Redis

from streaming.stores.list_client import key
from streaming.stores.redis_lists import Prediction, RedisSink
from tests.support.docs import CONTRACTS

HORIZONS: Final = (0, 3, 10)
SECTION: Final = " ".join(CONTRACTS.partition("## Lists in Redis")[2].partition("\n## ")[0].split())


def lists(prefix: str, titles: int = 100) -> dict[int, list[str]]:
    """Lists of distinct title ids of eight characters."""
    return {horizon: [f"{prefix}{horizon:03d}{n:04d}" for n in range(titles)] for horizon in HORIZONS}


@pytest.fixture
def client(redis_url: str) -> Any:
    return Redis.from_url(redis_url, decode_responses=True)


def test_key_has_the_documented_size(redis_url: str, client: Any) -> None:
    user = uuid.uuid4().hex
    writer = RedisSink(redis_url, log_identity="5L6g3nShT-eMCtK--X86sw-2f9c1be0a7d4").build_part("lists", "0", None)
    writer.write_batch(
        [
            [
                Prediction(
                    user, lists("t"), 7, (1_700_000_000_000, 123_456, 7, 1_700_000_000_000_000), 42, 1_700_000_000_000
                )
            ]
        ]
    )
    used = client.memory_usage(key(user), samples=0)
    client.delete(key(user))
    (documented,) = re.findall(r"([\d.]+) KB per user", SECTION)
    assert 0.8 * float(documented) <= used / 1000 <= 1.1 * float(documented)


def test_expiry_is_the_setting_plus_or_minus_ten_percent(redis_url: str, client: Any) -> None:
    users = [uuid.uuid4().hex for _ in range(200)]
    writer = RedisSink(redis_url, ttl=timedelta(days=30)).build_part("lists", "0", None)
    writer.write_batch([[Prediction(user, lists("t", 1), 1, (0, 0, 1, 0), 1, 0) for user in users]])
    days = [client.ttl(key(user)) / 86_400 for user in users]
    client.delete(*map(key, users))
    assert 26.9 < min(days) < 28
    assert 32 < max(days) < 33.1


def test_reader_never_sees_a_mix_of_two_versions(redis_url: str, client: Any) -> None:
    user, done = uuid.uuid4().hex, threading.Event()
    writer = RedisSink(redis_url).build_part("lists", "0", None)

    def write() -> None:
        for version in range(300):
            prefix = "ab"[version % 2]
            writer.write_batch([[Prediction(user, lists(prefix), version, (0, 0, version, 0), 1, 0)]])
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen: dict[str, set[str]] = {}
    reads = mixed = 0
    while not done.is_set() or reads < 2:
        found = client.hgetall(key(user))
        if found:
            reads += 1
            prefixes = {
                title for horizon in HORIZONS for title in re.findall(r'"([ab])\d', found[f"horizon:{horizon}"])
            }
            mixed += len(prefixes) != 1
            seen.setdefault(found["version"], set()).update(prefixes)
    thread.join()
    client.delete(key(user))
    assert mixed == 0
    assert len(seen) > 1
    assert all(prefixes == {"ab"[int(version) % 2]} for version, prefixes in seen.items())
