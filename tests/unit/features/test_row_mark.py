"""The mark of a view is lost with its rows, by any kind of deletion, and otherwise stays."""

import uuid
from pathlib import Path

from feast import FeatureStore

from features.row_mark import read_mark, write_mark
from features.store import open_store, write_user_activity
from tests.support.feature_rows import user_row


def new_store(redis_url: str, folder: Path) -> FeatureStore:
    return open_store(redis_url, folder, f"test_{uuid.uuid4().hex[:8]}")


def test_mark_is_kept_by_writer_and_view(redis_url: str, tmp_path: Path) -> None:
    store = new_store(redis_url, tmp_path)
    write_mark(store, "user_activity", "features-0", "written")
    write_user_activity(store, [user_row("u", 0, 1, ["a"])])
    open_store(redis_url, tmp_path, store.project)
    marks = [read_mark(store, "user_activity", f"features-{index}") for index in (0, 1)]
    assert marks == ["written", None]
    assert read_mark(store, "title_semantics", "features-0") is None


def test_teardown_deletes_the_mark(redis_url: str, tmp_path: Path) -> None:
    store = new_store(redis_url, tmp_path)
    for view in ("user_activity", "title_semantics"):
        write_mark(store, view, "w", "written")
    FeatureStore(config=store.config).teardown()
    assert [read_mark(store, view, "w") for view in ("user_activity", "title_semantics")] == [None, None]


def test_removal_of_a_view_deletes_its_mark(redis_url: str, tmp_path: Path) -> None:
    store = new_store(redis_url, tmp_path)
    for view in ("user_activity", "title_semantics"):
        write_mark(store, view, "w", "written")
    other = FeatureStore(config=store.config)
    other.apply([], objects_to_delete=[other.get_feature_view("user_activity")], partial=False)
    assert [read_mark(store, view, "w") for view in ("user_activity", "title_semantics")] == [None, "written"]
