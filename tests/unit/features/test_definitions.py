"""The definitions give point-in-time history from the offline log, and fit the schemas of its files."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, FeatureView
from feast.types import Array, Bool, Float32, Int64, String

from features.definitions import (
    TITLE_SEMANTICS_SCHEMA,
    USER_ACTIVITY_SCHEMA,
    VIEW_SCHEMAS,
    recommender,
    title_semantics,
    user_activity,
)
from features.store import offline_folder, open_store
from tests.support.feature_rows import NOON, title_row, user_row

ARROW_TYPES: dict[Any, pa.DataType] = {
    String: pa.string(),
    Int64: pa.int64(),
    Bool: pa.bool_(),
    Array(String): pa.list_(pa.string()),
    Array(Int64): pa.list_(pa.int64()),
    Array(Float32): pa.list_(pa.float32()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("definitions")


@pytest.fixture(scope="module")
def store(redis_url: str, folder: Path) -> FeatureStore:
    return open_store(redis_url, folder, f"test_{uuid.uuid4().hex[:8]}")


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def history(store: FeatureStore, folder: Path, name: str) -> Iterator[str]:
    """The offline log of a user with two events in one second and then a late one, in three files."""
    log = offline_folder(folder, "user_activity")
    rows = [
        user_row(name, 0, 1, ["a"]),
        user_row(name, 0, 2, ["b", "a"]),  # in the same second
        user_row(name, 60, 3, ["c", "b", "a"]),
        user_row(name, 60, 4, ["c", "b", "late", "a"]),  # an event between them that arrives late
    ]
    for number, part in enumerate([rows[:2], rows[2:3], rows[3:]]):
        pq.write_table(pa.Table.from_pylist(part, schema=USER_ACTIVITY_SCHEMA), log / f"{name}-{number}.parquet")
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


def test_historical_features_are_point_in_time_correct(store: FeatureStore, history: str) -> None:
    first, both, minute_before, third, late = at(store, history, 1e-6, 2e-6, 59, 60 + 3e-6, 60 + 4e-6)
    assert first == (1, ["a"])
    assert both == (2, ["b", "a"])
    assert minute_before == (2, ["b", "a"])  # the late event had happened, but had not arrived
    assert third == (3, ["c", "b", "a"])
    assert late == (4, ["c", "b", "late", "a"])


def test_no_historical_features_before_the_first_event(store: FeatureStore, history: str) -> None:
    assert at(store, history, -1) == []  # Feast's file store omits entities without earlier rows


def test_duplicate_offline_row_counts_once(store: FeatureStore, folder: Path, history: str) -> None:
    log = offline_folder(folder, "user_activity")
    pq.write_table(pq.read_table(log / f"{history}-0.parquet"), log / f"{history}-again.parquet")
    assert at(store, history, 1) == [(2, ["b", "a"])]


def test_feature_service_joins_users_and_titles(store: FeatureStore, folder: Path, history: str) -> None:
    log = offline_folder(folder, "title_semantics")
    rows = [
        title_row(history),
        title_row(history, NOON + timedelta(seconds=30), withdrawn=True, semantic=[], year=None),
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=TITLE_SEMANTICS_SCHEMA), log / f"{history}.parquet")
    times = [NOON + timedelta(seconds=second) for second in (1, 31)]
    entities = pd.DataFrame({"user_id": [history] * 2, "title_id": [history] * 2, "event_timestamp": times})
    service = store.get_feature_service(recommender.name)
    frame = store.get_historical_features(entity_df=entities, features=service).to_df().sort_values("event_timestamp")
    assert list(frame["event_count"]) == [2, 2]
    assert list(frame["withdrawn"]) == [False, True]
    assert [list(vector) for vector in frame["semantic"]] == [[0.25, -0.5], []]
    assert list(frame["name"]) == ["Amélie 🎬"] * 2


@pytest.mark.parametrize("view", [user_activity, title_semantics], ids=lambda view: view.name)
def test_offline_log_has_each_field_of_the_view(view: FeatureView) -> None:
    schema = VIEW_SCHEMAS[view.name]
    assert schema.names[0] == view.entity_columns[0].name  # the key
    for field in view.features:
        assert schema.field(field.name).type == ARROW_TYPES[field.dtype], field.name
    assert view.batch_source is not None
    for column in (view.batch_source.timestamp_field, view.batch_source.created_timestamp_column):
        assert schema.field(column).type == pa.timestamp("us", tz="UTC")
