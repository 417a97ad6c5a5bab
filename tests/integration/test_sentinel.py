"""Lists and features go on after a failover that a real Sentinel makes: its address leads to the new master."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import features.feast_import  # noqa: F401

# isort: split
from feast import FeatureStore

from features.redis_address import connect
from features.store import open_store, write_user_activity
from infra.doctor.redis_checks import redis_findings
from infra.settings import Settings
from streaming.errors import StreamError
from streaming.stores.list_client import read
from streaming.stores.redis_lists import ErasedUser, Prediction, RedisSink, WithdrawnTitles
from streaming.stores.retry import RedisRefusedError, RedisUnavailableError, retry_until_available
from tests.support.feature_rows import user_row
from tests.support.redis_servers import PASSWORD, SentinelGroup, run_sentinel_group, wait_until


@pytest.fixture
def group(tmp_path: Path) -> Iterator[SentinelGroup]:
    with run_sentinel_group(tmp_path / "redis") as found:
        yield found


def prediction(title: str, offset: int) -> Prediction:
    return Prediction("u", {0: [title, "x"]}, version=0, revision=(offset, offset, 0, 0), events=1, event_ms=0)


def test_writes_go_on_after_a_failover(group: SentinelGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(group.url, tmp_path / "feast")
    write_user_activity(store, [user_row("u", 0, 1, ["a"])])
    partition = RedisSink(group.url).build_part("lists", "0", None)
    partition.write_batch([[prediction("a", 1), WithdrawnTitles(frozenset({"x"}), 1), ErasedUser("gone", 5)]])
    assert group.master.client.wait(1, 10_000) == 1
    group.master.kill()

    write = partial(write_user_activity, store, [user_row("u", 60, 2, ["b", "a"])])
    retry_until_available(write, "features", lambda: None, max_outage_s=60)
    wait_until(lambda: group.replica.client.role()[0] == "master")
    group.replica.client.delete("premiere:withdrawn", "premiere:withdrawn:revision")  # as if it had not got them
    partition.write_batch([[prediction("b", 2)]])

    with closing(connect(group.url)) as client:
        assert read(client, "u") == ["b"]
    assert group.replica.client.smembers("premiere:withdrawn") == {"x"}
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    plain: Any = FeatureStore(repo_path=str(tmp_path / "feast"))
    found = plain.get_online_features(["user_activity:recent_titles"], [{"user_id": "u"}]).to_dict()
    assert found["recent_titles"] == [["b", "a"]]


def test_doctor_checks_the_master(group: SentinelGroup, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url=group.url)
    assert not [one for one in redis_findings(settings) if one.level == "error" or "replica" in one.text]
    group.replica.kill()
    wait_until(lambda: group.master.client.info("replication")["connected_slaves"] == 0)
    assert "Start a replica." in [one.remedy for one in redis_findings(settings)]
    missing = settings.model_copy(update={"redis_url": group.url.replace("/lists/", "/others/")})
    (found,) = redis_findings(missing)
    assert (found.level, PASSWORD in found.text) == ("error", False)
    assert found.text.endswith("No master found for 'others' : network:ConnectionError")


@pytest.mark.parametrize(
    ("host", "error", "text"),
    [
        ("127.0.0.1:1", RedisUnavailableError, "no master that its Sentinels know .*'lists' : network:ConnectionError"),
        ("", RedisRefusedError, "unknown command"),  # a Redis is no Sentinel
    ],
)
def test_flow_ends_with_one_sentence(redis_url: str, host: str, error: type[StreamError], text: str) -> None:
    url = f"redis+sentinel://{host or urlsplit(redis_url).netloc}/lists"
    partition = RedisSink(url, max_outage_s=0).build_part("lists", "0", None)
    with pytest.raises(error, match=text) as caught:
        partition.write_batch([[prediction("a", 1)]])
    assert "<" not in str(caught.value)
