"""The offset from which a worker of `publish` fills its caches, and the folder that versions are loaded from."""

from pathlib import Path

import pytest

from infra.run.peer_offsets import worker_group_id
from infra.run.publish import _load_recommender, is_below, start_offset
from infra.run.workers import Worker
from infra.settings import Settings
from model.checkpoint import CheckpointError
from tests.support.kafka import commit_offset
from tests.support.streams import produce
from tests.support.trained_version import DATA, version


def test_new_worker_starts_at_offset_of_group(kafka: str, topic: str) -> None:
    config, limit = {"bootstrap.servers": kafka}, 10
    for start in range(0, 100, 10):
        produce(config, topic, range(start, start + 10))
    old, new = Worker(0, 1), Worker(1, 2)
    assert 80 < start_offset(config, topic, limit, new) <= 90  # Tansu's end offset is up to one batch too low
    commit_offset(kafka, worker_group_id(old), topic, 30)
    assert start_offset(config, topic, limit, new) == 30  # there may be erasure requests after it
    commit_offset(kafka, worker_group_id(new), topic, 40)
    assert start_offset(config, topic, limit, new) == 40
    assert start_offset(config, topic, limit, old) == 30
    assert start_offset(config, topic, None, new) == 0


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("/data/checkpoints/000000000001", "/data/checkpoints"),
        ("/data/checkpoints//x/../000000000001", "/data/checkpoints/"),
        ("file:///data/checkpoints/1", "/data/checkpoints"),
        ("checkpoints/1", "checkpoints"),
        ("s3://bucket/checkpoints/1", "s3://bucket/checkpoints/"),
        ("s3://bucket/1", "s3://bucket"),
        ("simplecache::s3://bucket/1", "simplecache::s3://bucket"),
    ],
)
def test_path_below_the_checkpoint_folder_is_accepted(url: str, folder: str) -> None:
    assert is_below(url, folder)


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("/data/checkpoints", "/data/checkpoints"),
        ("/data/checkpoints-2/1", "/data/checkpoints"),
        ("/data/checkpoints/../1", "/data/checkpoints"),
        ("/elsewhere/1", "/data/checkpoints"),
        ("file:/elsewhere/1", "."),
        ("file:///elsewhere/1", "/data/checkpoints"),
        ("s3://bucket/data/checkpoints/1", "/data/checkpoints"),
        ("s3://other/checkpoints/1", "s3://bucket/checkpoints"),
        ("s3://bucket/checkpoints/../1", "s3://bucket/checkpoints"),
        ("http://data/checkpoints/1", "s3://data/checkpoints"),
        ("/data/checkpoints/1::memory", "/data/checkpoints"),
        ("simplecache::s3://bucket/checkpoints/1", "s3://bucket/checkpoints"),
    ],
)
def test_path_outside_the_checkpoint_folder_is_refused(url: str, folder: str) -> None:
    assert not is_below(url, folder)


def test_link_cannot_lead_out_of_the_checkpoint_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "checkpoints", tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (tmp_path / "same").symlink_to(folder)
    assert not is_below(str(folder / "link" / "1"), str(folder))
    assert is_below(str(tmp_path / "same" / "1"), str(folder))


def test_version_outside_the_checkpoint_folder_is_not_loaded(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    inside, outside = (version(settings, folder).path for folder in (Path(settings.checkpoints_url()), tmp_path / "x"))
    assert _load_recommender(settings.checkpoints_url(), inside, []).is_candidate(DATA.launches[0].title)
    with pytest.raises(CheckpointError, match="PREMIERE_CHECKPOINTS"):
        _load_recommender(settings.checkpoints_url(), outside, [])
