"""The users of docs/security.md on a real Redis: each can do its work, and needs each of its commands for that."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

import features.feast_import  # noqa: F401

# isort: split
from feast import FeatureStore

from features.redis_address import connect
from features.row_mark import read_mark, write_mark
from features.store import open_store, write_title_semantics, write_user_activity
from infra.doctor.redis_checks import redis_findings
from infra.local.embedded import start_redis
from infra.local.supervisor import FLOWS
from infra.settings import Settings
from streaming.stores.list_client import owners_key, read
from streaming.stores.redis_lists import ErasedUser, LaunchCompleted, Prediction, RedisSink, WithdrawnTitles
from streaming.stores.retry import RedisRefusedError, retry_until_available
from tests.support.feature_rows import NOON, title_row, user_row
from tests.support.paths import ROOT

COMMANDS: Final = re.findall(r"^ACL SETUSER .*", (ROOT / "docs" / "security.md").read_text(), re.M)
USERS: Final = {line.split()[2]: line for line in COMMANDS}
NO_NEED: Final = {"ping"}  # only after 30 s without a command


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def admin(address: str) -> Iterator[Any]:
    with Redis.from_url(address, decode_responses=True) as client:
        for line in COMMANDS:
            client.execute_command(*line.split())
        yield client
        client.flushall()
        client.acl_deluser(*USERS)
        client.script_flush()


def prediction(user: str) -> Prediction:
    return Prediction(user, {0: ["a"]}, version=0, revision=(1, 1, 0, 0), events=1, event_ms=0)


def run_features(url: str, folder: Path) -> None:
    rows = [user_row("u", 0, 1, ["a"]), {"user_id": "v", "partition": 0, "offset": 9, "appended": NOON}]
    store = open_store(url, folder)
    retry_until_available(lambda: write_user_activity(store, rows), "features", lambda: None)
    check_mark(store, "user_activity")


def run_titles(url: str, folder: Path) -> None:
    rows, store = [title_row("a"), title_row("b"), {"title_id": "b"}], open_store(url, folder)
    retry_until_available(lambda: write_title_semantics(store, rows), "titles", lambda: None)
    check_mark(store, "title_semantics")


def check_mark(store: FeatureStore, view: str) -> None:
    write_mark(store, view, "worker", "written")
    assert read_mark(store, view, "worker") == "written"


def run_publish(url: str, _folder: Path) -> None:
    """Two logs, an erased user, a set of withdrawn titles that changes, and what the start of the flow reads."""
    for log_identity in ("log-1", "log-2"):
        part = RedisSink(url, log_identity=log_identity).build_part("lists", "0", None)
        part.write_batch([[prediction("u"), WithdrawnTitles(frozenset("ab"), 1)]])
        part.write_batch([[WithdrawnTitles(frozenset("a"), 2), LaunchCompleted("a", 1), ErasedUser("u", 5)]])
        part.close()
    with closing(connect(url)) as client:
        retry_until_available(lambda: client.hvals(owners_key()), "publish", lambda: None)


def run_lists(url: str, _folder: Path) -> None:
    with closing(connect(url)) as client:
        assert read(client, "known") == ["a"]


def run_feast(url: str, folder: Path) -> None:
    store: Any = FeatureStore(config=open_store(url, folder).config)
    store.get_online_features(["user_activity:recent_titles"], [{"user_id": "u"}]).to_dict()


WORK: Final[dict[str, Callable[[str, Path], None]]] = {
    "features": run_features, "titles": run_titles, "publish": run_publish, "lists": run_lists, "feast": run_feast,
}  # fmt: skip


def url_of(address: str, user: str) -> str:
    return address.replace("redis://", f"redis://{user}:PASSWORD@")


@pytest.mark.parametrize("user", WORK)
def test_each_user_can_do_its_work_and_needs_each_command(address: str, admin: Any, tmp_path: Path, user: str) -> None:
    url, commands = url_of(address, user), re.findall(r" [+](\S+)", USERS[user])
    for missing in (None, *commands):
        admin.flushall()
        admin.script_flush()
        RedisSink(address).build_part("lists", "0", None).write_batch([[prediction("known")]])
        given = USERS[user].replace(f" +{missing}", "", 1).split()
        admin.execute_command(*given[:3], "reset", *given[3:])
        if missing in (None, *NO_NEED):
            WORK[user](url, tmp_path)
        else:
            with pytest.raises((RedisRefusedError, NoPermissionError)) as caught:
                WORK[user](url, tmp_path)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("user", "key"), [("features", "premiere:user:u"), ("publish", "other"), ("lists", "premiere:owners")]
)
def test_keys_of_others_are_refused(address: str, admin: Any, user: str, key: str) -> None:
    admin.hset(key, "field", "value")
    with closing(connect(url_of(address, user))) as client, pytest.raises(RedisError, match="permission"):
        client.hmget(key, ["field"]) if user != "lists" else client.hgetall(key)


def test_doctor_checks_the_permissions_of_a_flow(address: str, admin: Any, tmp_path: Path) -> None:
    def errors(user: str, *flows: str) -> list[str]:
        made = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url=url_of(address, user))
        return [one.remedy for one in redis_findings(made, flows) if one.level == "error"]

    assert [errors(flow, flow) for flow in ("features", "titles", "publish")] == [[], [], []]
    assert errors("operators", *FLOWS) == []
    refused = ["docs/security.md lists the permissions."]
    assert errors("features", "publish") == errors("publish", "titles") == errors("lists", "publish") == refused
    with closing(connect(url_of(address, "operators"))) as client, pytest.raises(NoPermissionError):
        client.flushall()
