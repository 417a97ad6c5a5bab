"""What a plain Feast program reads, what history knew when, and who may open the repository."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import FeatureStore

from features.definitions import RECENT, TITLE_ROW, USER_ROW, USER_TTL, recommender
from features.rows import RowError
from features.store import (
    StoreError,
    knows_user,
    offline_folder,
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


def test_a_plain_feast_program_reads_users_and_titles(store: FeatureStore, folder: Path, name: str) -> None:
    write_user_activity(store, [user_row(name, 0, 2, ["b", "a"])])
    write_title_semantics(store, [title_row(name)])
    plain = FeatureStore(repo_path=str(folder))
    values = plain.get_online_features(
        features=plain.get_feature_service("recommender"), entity_rows=[{"user_id": name, "title_id": name}]
    ).to_dict()
    known = {feature: value[0] for feature, value in values.items()}
    assert known["recent_titles"] == ["b", "a"]
    assert known["recent_actions"] == [3, 3]
    assert (known["event_count"], known["last_title"], known["last_action"]) == (2, "b", "play")
    assert (known["name"], known["genres"], known["year"]) == ("Amélie 🎬", ["Comedy", "Romance"], 2001)
    assert (known["withdrawn"], known["semantic"]) == (False, [0.25, -0.5])


def test_a_forgotten_user_is_gone_and_begins_anew_even_with_older_times(store: FeatureStore, name: str) -> None:
    mark = {"user_id": name, "partition": 0, "offset": 9, "appended": NOON}
    write_user_activity(store, [user_row(name, 60, 2, ["b", "a"])])
    assert knows_user(store, name)
    write_user_activity(store, [user_row(name, 90, 3, ["c"]), mark])
    assert not knows_user(store, name)
    assert online(store, name, "event_count", "recent_titles") == {"event_count": None, "recent_titles": None}
    write_user_activity(store, [user_row(name, 60, 2, ["b", "a"])])  # a replay
    write_user_activity(store, [mark, user_row(name, 0, 1, ["d"])])
    assert online(store, name, "event_count", "recent_titles") == {"event_count": 1, "recent_titles": ["d"]}


def test_somebody_nobody_knows_reads_as_nothing(store: FeatureStore, name: str) -> None:
    assert online(store, name, "event_count", "recent_titles") == {"event_count": None, "recent_titles": None}


def test_a_title_without_text_or_year_is_stored_as_that(store: FeatureStore, name: str) -> None:
    write_title_semantics(store, [title_row(name, name="", year=None, semantic=[], genres=[])])
    refs = [f"title_semantics:{feature}" for feature in ("name", "year", "semantic", "genres")]
    values = store.get_online_features(features=refs, entity_rows=[{"title_id": name}]).to_dict()
    assert {feature: values[feature][0] for feature in ("name", "year", "semantic", "genres")} == {
        "name": "",
        "year": None,
        "semantic": [],
        "genres": [],
    }


def test_of_a_batch_the_newest_row_stays_and_a_replay_changes_nothing(store: FeatureStore, name: str) -> None:
    rows = [user_row(name, 0, 1, ["a"]), user_row(name, 0, 3, ["c"]), user_row(name, 0, 2, ["b"])]
    write_user_activity(store, rows)
    assert online(store, name, "event_count", "last_title") == {"event_count": 3, "last_title": "c"}
    write_user_activity(store, rows[:1])
    write_user_activity(store, [{**rows[1], "last_title": "another at the same time"}])
    assert online(store, name, "event_count", "last_title") == {"event_count": 3, "last_title": "c"}


def test_many_more_rows_than_a_batch_arrive(store: FeatureStore, name: str) -> None:
    write_user_activity(store, [user_row(f"{name}{number}", 0, number, ["a"]) for number in range(1203)])
    for number in (0, 499, 500, 1202):
        assert online(store, f"{name}{number}", "event_count") == {"event_count": number}


def test_users_expire_and_titles_stay(store: FeatureStore, redis_url: str, name: str) -> None:
    write_user_activity(store, [user_row(name, 0, 1, ["a"])])
    write_title_semantics(store, [title_row(name)])
    with redis.Redis.from_url(redis_url) as client:
        ttls = {b"user_id" in key: client.ttl(key) for key in client.scan_iter(f"*{name}*")}
    assert ttls == {True: pytest.approx(USER_TTL.total_seconds(), abs=60), False: -1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"event_count": "three"},
        {"event_count": 2**63},
        {"last_title": 7},
        {"recent_titles": ["a", 1]},
        {"recent_ms": [1.5]},
        {"recent_actions": [3] * (RECENT + 1)},
        {"event_timestamp": datetime(2016, 5, 1)},  # no time zone
    ],
)
def test_a_row_of_the_wrong_shape_is_refused_at_our_own_edge(
    store: FeatureStore, name: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(RowError, match="user_activity"):
        write_user_activity(store, [user_row(name, 0, 1, ["a"]) | wrong])


def test_a_row_without_a_column_or_with_an_infinite_vector_is_refused(store: FeatureStore, name: str) -> None:
    row = user_row(name, 0, 1, ["a"])
    with pytest.raises(RowError, match="last_action"):
        write_user_activity(store, [{key: value for key, value in row.items() if key != "last_action"}])
    with pytest.raises(RowError, match="finite"):
        write_title_semantics(store, [title_row(name, semantic=[float("nan")])])


@pytest.fixture
def history(store: FeatureStore, folder: Path, name: str) -> Iterator[str]:
    """The offline log of a user with two events in one second and then a late one, in three files."""
    log = offline_folder(folder, "user_activity")
    rows = [
        user_row(name, 0, 1, ["a"]),
        user_row(name, 0, 2, ["b", "a"]),  # in the same second
        user_row(name, 60, 3, ["c", "b", "a"]),
        user_row(name, 60, 4, ["c", "b", "late", "a"]),  # happened between them, known only now
    ]
    for number, part in enumerate([rows[:2], rows[2:3], rows[3:]]):
        pq.write_table(pa.Table.from_pylist(part, schema=USER_ROW), log / f"{name}-{number}.parquet")
    yield name
    for file in log.glob(f"{name}-*"):
        file.unlink()


def at(store: FeatureStore, user: str, *seconds: float) -> list[tuple[Any, Any]]:
    times = [NOON + timedelta(seconds=second) for second in seconds]
    entities = pd.DataFrame({"user_id": [user] * len(times), "event_timestamp": times})
    features = ["user_activity:event_count", "user_activity:recent_titles"]
    frame = store.get_historical_features(entity_df=entities, features=features).to_df()
    frame = frame.sort_values("event_timestamp")
    return [
        (None if pd.isna(count) else int(count), None if titles is None else list(titles))
        for count, titles in zip(frame["event_count"], frame["recent_titles"], strict=True)
    ]


def test_history_is_what_was_known_at_that_time(store: FeatureStore, history: str) -> None:
    first, both, minute_before, third, late = at(store, history, 1e-6, 2e-6, 59, 60 + 3e-6, 60 + 4e-6)
    assert first == (1, ["a"])
    assert both == (2, ["b", "a"])
    assert minute_before == (2, ["b", "a"])  # the late event had happened by then, and nobody knew of it
    assert third == (3, ["c", "b", "a"])
    assert late == (4, ["c", "b", "late", "a"])


def test_nothing_is_known_before_the_first_event(store: FeatureStore, history: str) -> None:
    assert at(store, history, -1) == []  # Feast's file store leaves out who has only a future


def test_a_row_written_twice_counts_once(store: FeatureStore, folder: Path, history: str) -> None:
    log = offline_folder(folder, "user_activity")
    pq.write_table(pq.read_table(log / f"{history}-0.parquet"), log / f"{history}-again.parquet")
    assert at(store, history, 1) == [(2, ["b", "a"])]


def test_history_joins_titles_through_the_service(store: FeatureStore, folder: Path, history: str) -> None:
    log = offline_folder(folder, "title_semantics")
    rows = [
        title_row(history),
        title_row(history, NOON + timedelta(seconds=30), withdrawn=True, semantic=[], year=None),
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=TITLE_ROW), log / f"{history}.parquet")
    times = [NOON + timedelta(seconds=second) for second in (1, 31)]
    entities = pd.DataFrame({"user_id": [history] * 2, "title_id": [history] * 2, "event_timestamp": times})
    service = store.get_feature_service(recommender.name)
    frame = store.get_historical_features(entity_df=entities, features=service).to_df().sort_values("event_timestamp")
    assert list(frame["event_count"]) == [2, 2]
    assert list(frame["withdrawn"]) == [False, True]
    assert [list(vector) for vector in frame["semantic"]] == [[0.25, -0.5], []]
    assert list(frame["name"]) == ["Amélie 🎬"] * 2


def test_an_empty_log_has_no_history(redis_url: str, tmp_path: Path) -> None:
    assert at(open_store(redis_url, tmp_path), "nobody", 0)[0][0] is None


def test_a_new_repository_may_be_opened_by_several_at_once(redis_url: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_store(redis_url, tmp_path / "new"), range(4)))
    for store in stores:
        assert {view.name for view in store.list_feature_views()} == {"title_semantics", "user_activity"}


def test_definitions_are_applied_once(redis_url: str, tmp_path: Path) -> None:
    open_store(redis_url, tmp_path)
    before = os.stat(tmp_path / "registry.db").st_mtime_ns
    open_store(redis_url, tmp_path)
    assert os.stat(tmp_path / "registry.db").st_mtime_ns == before
    (tmp_path / ".definitions").write_text("those of an older version")
    open_store(redis_url, tmp_path)
    assert os.stat(tmp_path / "registry.db").st_mtime_ns > before


def test_a_password_is_not_written_down_and_a_plain_program_takes_it_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store("rediss://viewer:s%40cret@example.org:7000/3", tmp_path)
    shown = (tmp_path / "feature_store.yaml").read_text()
    assert "s@cret" not in shown
    assert "s%40cret" not in shown
    monkeypatch.setenv("REDIS_PASSWORD", "s@cret")
    assert FeatureStore(repo_path=str(tmp_path)).config.online_store == store.config.online_store
    assert "example.org:7000,db=3" in store.config.online_store.connection_string


@pytest.mark.parametrize("url", ["http://localhost:6379", "redis://", "redis://:a,b@localhost"])
def test_an_address_that_feast_cannot_use_is_refused_with_the_remedy(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreError, match=r"redis://host:6379/0|choose another"):
        open_store(url, tmp_path)


def test_opening_a_store_does_not_import_torch() -> None:
    code = "import sys, features.store; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
