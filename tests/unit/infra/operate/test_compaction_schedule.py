"""The offline log is compacted by the command, and by the flow's thread at its start and after erasure requests."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore

from features.definitions import USER_ACTIVITY_SCHEMA, USER_ERASURES, USER_ERASURES_SCHEMA, user_activity
from features.store import open_store
from infra.errors import PremiereError, SettingsError
from infra.local import data_lock
from infra.operate import compaction_schedule
from infra.operate.compaction_schedule import (
    compact_now,
    compact_offline_log,
    event_retention_days,
    offline_folder,
    start_compaction_thread,
)
from infra.settings import Settings
from streaming.stores.parquet_log import ParquetSink
from tests.support.feature_rows import user_row
from tests.support.streams import deadline


def write(settings: Settings, log: str, schema: pa.Schema, *epochs: list[dict[str, Any]]) -> None:
    """Write each list of rows as one epoch, and so as one file."""
    part = ParquetSink(offline_folder(settings) / log, 1, schema).build_part("offline", "p000", None)
    for rows in epochs:
        part.write_batch([rows])
        part.snapshot()
    part.close()


def request(user: str) -> dict[str, Any]:
    return {"user_id": user, "appended": datetime.now(UTC)}


@contextmanager
def compaction_thread(settings: Settings) -> Iterator[None]:
    stop = threading.Event()
    start_compaction_thread(settings, stop)
    (thread,) = (each for each in threading.enumerate() if each.name == "compaction")
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A data folder whose offline log has two files of one past day and keeps all days."""
    settings = Settings(data_dir=tmp_path, bootstrap_servers="", redis_url="", offline_days=0)
    rows = [user_row(user, second, second + 1, ["t"]) for second, user in enumerate(("ann", "bob", "ann"))]
    write(settings, user_activity.name, USER_ACTIVITY_SCHEMA, rows[:1], rows[1:])
    return settings


def files(settings: Settings) -> list[str]:
    return sorted(path.name for path in (offline_folder(settings) / user_activity.name).glob("*.parquet"))


def users(settings: Settings) -> list[str]:
    found: list[str] = pq.read_table(offline_folder(settings) / user_activity.name)["user_id"].to_pylist()
    return found


def event_counts(store: FeatureStore) -> dict[str, int | None]:
    """What plain Feast reads of the offline log, by user."""
    entities = pd.DataFrame({"user_id": ["ann", "bob"], "event_timestamp": datetime.now(UTC)})
    frame = store.get_historical_features(entity_df=entities, features=["user_activity:event_count"]).to_df()
    counts = zip(frame["user_id"], frame["event_count"], strict=True)
    return {user: None if pd.isna(count) else int(count) for user, count in counts}


def wait_until(condition: Callable[[], bool]) -> None:
    is_late = deadline(60)
    while not condition():
        assert not is_late()
        time.sleep(0.05)


def test_events_stay_in_kafka_for_their_retention_and_one_segment() -> None:
    assert event_retention_days() == 7 + 8


def test_command_merges_the_files_of_a_past_day(settings: Settings) -> None:
    lines: list[str] = []
    compact_now(settings, lines.append)
    assert [name[:14] for name in files(settings)] == ["day-2016-05-01"]
    assert sorted(users(settings)) == ["ann", "ann", "bob"]
    assert [line.split()[:2] for line in lines] == [["user_activity", "2"]]
    lines.clear()
    compact_now(settings, lines.append)
    assert [line.split()[:2] for line in lines] == [["user_activity", "0"]]


def test_days_beyond_the_setting_expire(settings: Settings) -> None:
    limited = settings.model_copy(update={"offline_days": 30})
    assert [result.expired for result in compact_offline_log(limited, date(2016, 5, 31))] == [0]
    assert [result.expired for result in compact_offline_log(limited, date(2016, 6, 1))] == [1]
    assert files(settings) == []


def test_damaged_file_is_reported(settings: Settings) -> None:
    path = offline_folder(settings) / user_activity.name / files(settings)[0]
    path.write_bytes(b"no Parquet file")
    with pytest.raises(PremiereError, match=path.name):
        compact_now(settings, print)


def test_compaction_is_refused_during_reset(settings: Settings) -> None:
    with (
        data_lock.hold_exclusive(settings.data_dir),
        pytest.raises(SettingsError, match="`premiere reset` is deleting"),
    ):
        compact_now(settings, print)


def test_request_is_applied_without_waiting_for_the_hour(settings: Settings, redis_url: str) -> None:
    store = open_store(redis_url, settings.data_dir / "feast", f"test_{uuid.uuid4().hex[:8]}")
    with compaction_thread(settings):
        wait_until(lambda: len(files(settings)) == 1)
        assert event_counts(store) == {"ann": 3, "bob": 2}
        write(settings, USER_ERASURES, USER_ERASURES_SCHEMA, [request("ann")])
        wait_until(lambda: users(settings) == ["bob"])
        assert event_counts(store) == {"ann": None, "bob": 2}


def test_runs_for_requests_pause_in_proportion_to_their_duration(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction_schedule, "POLL_INTERVAL_S", 0.02)
    monkeypatch.setattr(compaction_schedule, "PAUSE_PER_RUN", 1e6)
    with compaction_thread(settings):
        wait_until(lambda: len(files(settings)) == 1)
        write(settings, USER_ERASURES, USER_ERASURES_SCHEMA, [request("ann")])
        time.sleep(1)
        assert sorted(users(settings)) == ["ann", "ann", "bob"]
