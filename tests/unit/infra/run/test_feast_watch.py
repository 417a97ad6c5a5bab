"""Views that another Feast program removes are applied again, and lost rows are counted once per loss."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from feast import FeatureStore

from features.row_mark import read_mark
from features.store import missing_views, open_store
from infra.run.feast_watch import WRITING, WRITTEN, start_feast_watch
from streaming.stores.lost_rows import LostRows


@pytest.fixture
def store(redis_url: str, tmp_path: Path) -> FeatureStore:
    return open_store(redis_url, tmp_path, f"test_{uuid.uuid4().hex[:8]}")


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def mark(store: FeatureStore) -> str | None:
    return read_mark(store, "user_activity", "w")


def watched(store: FeatureStore, stop: threading.Event) -> LostRows:
    lost = LostRows(1, stop)
    start_feast_watch(store, "user_activity", "w", lost, stop, interval_s=0.1)
    return lost


def test_teardown_is_repaired_and_counted_once(store: FeatureStore, stop: threading.Event) -> None:
    lost = watched(store, stop)
    wait_until(lambda: lost.losses == 1)  # the rows of a new store are not known to be there
    lost.restored = 1
    wait_until(lambda: mark(store) == WRITTEN)
    FeatureStore(config=store.config).teardown()
    wait_until(lambda: lost.losses == 2)
    wait_until(lambda: not missing_views(store))
    time.sleep(1)
    assert (lost.losses, mark(store)) == (2, WRITING)
    lost.restored = 2
    wait_until(lambda: mark(store) == WRITTEN)


def test_interrupted_restore_is_repeated_at_the_next_start(store: FeatureStore, stop: threading.Event) -> None:
    before = threading.Event()
    first = watched(store, before)
    wait_until(lambda: first.losses == 1)
    before.set()
    second = watched(store, stop)
    wait_until(lambda: second.losses == 1)


def test_complete_rows_are_not_written_again_at_the_next_start(store: FeatureStore, stop: threading.Event) -> None:
    before = threading.Event()
    first = watched(store, before)
    wait_until(lambda: first.losses == 1)
    first.restored = 1
    wait_until(lambda: mark(store) == WRITTEN)
    before.set()
    second = watched(store, stop)
    time.sleep(1)
    assert second.losses == 0
