"""The Feast repository: writes, erasure, expiry, and concurrent opening."""

import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
import redis
from feast import FeatureStore

from features.definitions import USER_TTL
from features.rows import RowError
from features.store import (
    _FINGERPRINT,
    StoreError,
    has_user,
    open_store,
    write_title_semantics,
    write_user_activity,
)
from tests.support.feature_rows import NOON, title_row, user_row


@pytest.fixture(scope="module")
def folder(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def store(redis_url: str, folder: Path) -> FeatureStore:
    return open_store(redis_url, folder, f"test_{uuid.uuid4().hex[:8]}")


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def online(store: FeatureStore, user: str, *features: str) -> dict[str, Any]:
    refs = [f"user_activity:{feature}" for feature in features]
    values = store.get_online_features(features=refs, entity_rows=[{"user_id": user}]).to_dict()
    return {feature: values[feature][0] for feature in features}


def test_plain_feast_program_reads_users_and_titles(store: FeatureStore, folder: Path, name: str) -> None:
    write_user_activity(store, [user_row(name, 0, 2, ["b", "a"])])
    write_title_semantics(store, [title_row(name)])
    plain = FeatureStore(repo_path=str(folder))
    values = plain.get_online_features(
        features=plain.get_feature_service("recommender"), entity_rows=[{"user_id": name, "title_id": name}]
    ).to_dict()
    features = {feature: value[0] for feature, value in values.items()}
    assert features["recent_titles"] == ["b", "a"]
    assert features["recent_actions"] == [3, 3]
    assert (features["event_count"], features["last_title"], features["last_action"]) == (2, "b", "play")
    assert (features["name"], features["genres"], features["year"]) == ("Amélie 🎬", ["Comedy", "Romance"], 2001)
    assert (features["withdrawn"], features["semantic"]) == (False, [0.25, -0.5])


def test_erased_user_is_deleted_and_restarts_with_older_times(store: FeatureStore, name: str) -> None:
    erasure = {"user_id": name, "partition": 0, "offset": 9, "appended": NOON}
    write_user_activity(store, [user_row(name, 60, 2, ["b", "a"])])
    assert has_user(store, name)
    write_user_activity(store, [user_row(name, 90, 3, ["c"]), erasure])
    assert not has_user(store, name)
    assert online(store, name, "event_count", "recent_titles") == {"event_count": None, "recent_titles": None}
    write_user_activity(store, [user_row(name, 60, 2, ["b", "a"])])  # reprocessed
    write_user_activity(store, [erasure, user_row(name, 0, 1, ["d"])])
    assert online(store, name, "event_count", "recent_titles") == {"event_count": 1, "recent_titles": ["d"]}


def test_ended_title_is_deleted_and_can_return(store: FeatureStore, redis_url: str, name: str) -> None:
    write_title_semantics(store, [title_row(name), {"title_id": name}])
    with redis.Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(f"*{name}*")) == []
        write_title_semantics(store, [{"title_id": name}, title_row(name)])
        assert len(list(client.scan_iter(f"*{name}*"))) == 1


def test_unknown_user_has_no_features(store: FeatureStore, name: str) -> None:
    assert online(store, name, "event_count", "recent_titles") == {"event_count": None, "recent_titles": None}


def test_title_without_text_or_year_is_stored(store: FeatureStore, name: str) -> None:
    write_title_semantics(store, [title_row(name, name="", year=None, semantic=[], genres=[])])
    refs = [f"title_semantics:{feature}" for feature in ("name", "year", "semantic", "genres")]
    values = store.get_online_features(features=refs, entity_rows=[{"title_id": name}]).to_dict()
    assert {feature: values[feature][0] for feature in ("name", "year", "semantic", "genres")} == {
        "name": "",
        "year": None,
        "semantic": [],
        "genres": [],
    }


def test_newest_row_of_a_batch_wins_and_repeats_change_nothing(store: FeatureStore, name: str) -> None:
    rows = [user_row(name, 0, 1, ["a"]), user_row(name, 0, 3, ["c"]), user_row(name, 0, 2, ["b"])]
    write_user_activity(store, rows)
    assert online(store, name, "event_count", "last_title") == {"event_count": 3, "last_title": "c"}
    write_user_activity(store, rows[:1])
    write_user_activity(store, [{**rows[1], "last_title": "another at the same time"}])
    assert online(store, name, "event_count", "last_title") == {"event_count": 3, "last_title": "c"}


def test_more_rows_than_one_write_all_arrive(store: FeatureStore, name: str) -> None:
    write_user_activity(store, [user_row(f"{name}{number}", 0, number, ["a"]) for number in range(1203)])
    for number in (0, 499, 500, 1202):
        assert online(store, f"{name}{number}", "event_count") == {"event_count": number}


def test_users_expire_and_titles_do_not(store: FeatureStore, redis_url: str, name: str) -> None:
    write_user_activity(store, [user_row(name, 0, 1, ["a"])])
    write_title_semantics(store, [title_row(name)])
    with redis.Redis.from_url(redis_url) as client:
        ttls = {b"user_id" in key: client.ttl(key) for key in client.scan_iter(f"*{name}*")}
    assert ttls == {True: pytest.approx(USER_TTL.total_seconds(), abs=60), False: -1}


def test_invalid_row_is_rejected_before_the_write(store: FeatureStore, name: str) -> None:
    with pytest.raises(RowError, match="user_activity"):
        write_user_activity(store, [user_row(name, 0, 1, ["a"]), {**user_row("u", 0, 1, ["a"]), "last_title": 7}])
    assert not has_user(store, name)


def test_empty_offline_log_has_no_features(redis_url: str, tmp_path: Path) -> None:
    store, entities = open_store(redis_url, tmp_path), pd.DataFrame({"user_id": ["nobody"], "event_timestamp": [NOON]})
    frame = store.get_historical_features(entity_df=entities, features=["user_activity:event_count"]).to_df()
    assert frame["event_count"].isna().tolist() == [True]


def test_new_repository_can_be_opened_concurrently(redis_url: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_store(redis_url, tmp_path / "new"), range(4)))
    for store in stores:
        assert {view.name for view in store.list_feature_views()} == {"title_semantics", "user_activity"}


def test_unchanged_definitions_are_applied_once(redis_url: str, tmp_path: Path) -> None:
    open_store(redis_url, tmp_path)
    before = os.stat(tmp_path / "registry.db").st_mtime_ns
    open_store(redis_url, tmp_path)
    assert os.stat(tmp_path / "registry.db").st_mtime_ns == before
    (tmp_path / ".definitions").write_text("definitions of an older version")
    open_store(redis_url, tmp_path)
    assert os.stat(tmp_path / "registry.db").st_mtime_ns > before


def test_hash_of_the_definitions_is_the_same_in_each_process() -> None:
    command = [sys.executable, "-c", "from features.store import _FINGERPRINT; print(_FINGERPRINT)"]
    found = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert found == {f"{_FINGERPRINT}\n"}


OTHER_TEAM = """
from feast import Entity, FeatureView, Field, FileSource
from feast.types import Int64

other = Entity(name="other", join_keys=["other_id"])
source = FileSource(name="other_log", path="offline/user_activity", timestamp_field="event_timestamp")
view = FeatureView(name="other_view", entities=[other], schema=[Field(name="event_count", dtype=Int64)], source=source)
"""


def test_apply_by_another_team_keeps_our_features(
    redis_url: str, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", urlsplit(redis_url).password or "")
    store = open_store(redis_url, tmp_path, f"test_{uuid.uuid4().hex[:8]}")
    write_user_activity(store, [user_row(name, 0, 1, ["a"])])
    (tmp_path / "other_team.py").write_text(OTHER_TEAM)
    done = subprocess.run(
        [sys.executable, "-m", "feast.cli.cli", "apply", "--skip-source-validation"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    plain = FeatureStore(repo_path=str(tmp_path))
    assert {view.name for view in plain.list_feature_views()} == {"user_activity", "title_semantics", "other_view"}
    assert online(plain, name, "event_count") == {"event_count": 1}


def test_removed_views_are_applied_again(redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(redis_url, tmp_path)
    store.delete_feature_view("user_activity")
    assert "user_activity" not in {view.name for view in FeatureStore(repo_path=str(tmp_path)).list_feature_views()}
    again = open_store(redis_url, tmp_path)
    assert "Another Feast program has removed user_activity" in caplog.text
    assert {view.name for view in again.list_feature_views()} == {"user_activity", "title_semantics"}


def test_password_is_read_from_the_environment_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("rediss://reader:s%40cret@example.org:7000/3", tmp_path)
    written = (tmp_path / "feature_store.yaml").read_text()
    assert "s@cret" not in written
    assert "s%40cret" not in written
    monkeypatch.setenv("REDIS_PASSWORD", "s@cret")
    assert FeatureStore(repo_path=str(tmp_path)).config.online_store == store.config.online_store
    assert "example.org:7000,db=3" in store.config.online_store.connection_string


@pytest.mark.parametrize("url", ["http://localhost:6379", "redis://", "redis://:a,b@localhost"])
def test_unusable_redis_address_is_rejected_with_the_remedy(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreError, match=r"redis://host:6379/0|choose another"):
        open_store(url, tmp_path)
