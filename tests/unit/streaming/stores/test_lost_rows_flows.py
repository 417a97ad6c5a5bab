"""The rows that the online store has lost are written again from the states of the flows, and nothing else is."""

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main

from features.text_encoders import TextEncoder, load_encoder
from streaming.stores.lost_rows import LostRows
from tests.support.features import NOW, FeaturesRun, erasure_request, event
from tests.support.titles import TOY, TitlesRun, launch, withdrawal


@pytest.fixture(scope="module")
def encode() -> TextEncoder:
    return load_encoder("wordllama")


def run_until_restored(flow: Dataflow, lost: LostRows, store: RecoveryConfig) -> None:
    def end() -> None:
        deadline = time.monotonic() + 30
        while lost.restored != lost.losses and time.monotonic() < deadline:
            time.sleep(0.05)
        lost.stop.set()

    ending = threading.Thread(target=end)
    ending.start()
    run_main(flow, recovery_config=store)
    ending.join()


NOW_IS_OLD = timedelta(days=1)  # the events are of 2023


def recovery(folder: Path) -> RecoveryConfig:
    init_db_dir(folder, 1)
    return RecoveryConfig(str(folder))


def without_created(row: dict[str, Any]) -> dict[str, Any]:
    """Feast compares only the event times of rows."""
    return {name: value for name, value in row.items() if name != "created"}


def a_loss() -> LostRows:
    lost = LostRows(8, threading.Event(), settle_s=0)
    lost.losses = 1
    return lost


def test_newest_row_of_each_user_is_written_again(tmp_path: Path) -> None:
    store, first = recovery(tmp_path), FeaturesRun()
    events = [event(f"u{n % 5}", f"t{n}", NOW + (n * 7919) % 50, n) for n in range(20)]
    run_main(first.flow(TestingSource([events])), recovery_config=store)
    second, lost = FeaturesRun(), a_loss()
    run_until_restored(second.flow(TestingSource([]), lost_rows=lost), lost, store)
    newest = {row["user_id"]: row for row in first.online.all()}
    columns = ("event_timestamp", "event_count", "last_title", "recent_titles", "recent_ms", "recent_actions")
    again = {row["user_id"]: [row[name] for name in columns] for row in second.online.all()}
    assert again == {user: [row[name] for name in columns] for user, row in newest.items()}
    assert len(second.online.all()) == 5
    assert (second.activity.all(), second.offline.all(), second.erasures.all()) == ([], [], [])


def test_erased_and_expired_users_get_no_row(tmp_path: Path) -> None:
    store, first = recovery(tmp_path), FeaturesRun()
    events = [event("erased", "a", NOW, 0), event("kept", "a", NOW, 1)]
    requests = TestingSource([[erasure_request("erased", 5)]])
    run_main(first.flow(TestingSource([events]), requests), recovery_config=store)
    second, lost = FeaturesRun(), a_loss()
    run_until_restored(second.flow(TestingSource([]), lost_rows=lost), lost, store)
    assert [row["user_id"] for row in second.online.all()] == ["kept"]
    third, lost = FeaturesRun(), a_loss()
    lost.ttl = NOW_IS_OLD
    run_until_restored(third.flow(TestingSource([]), lost_rows=lost), lost, store)
    assert third.online.all() == []


def test_row_of_each_title_is_written_again(encode: TextEncoder, tmp_path: Path) -> None:
    store, first = recovery(tmp_path), TitlesRun(encode)
    launches = [launch("1", 0, **TOY), launch("2", 1, name="Heat"), launch("1", 2, name="Toy Story 1")]
    run_main(first.flow(TestingSource([launches]), TestingSource([[withdrawal("2", 5)]])), recovery_config=store)
    second, lost = TitlesRun(encode), a_loss()
    run_until_restored(second.flow(TestingSource([]), lost_rows=lost), lost, store)
    newest = {row["title_id"]: without_created(row) for row in first.online.all()}
    assert {row["title_id"]: without_created(row) for row in second.online.all()} == newest
    assert (second.titles.all(), second.activity.all(), second.offline.all()) == ([], [], [])
