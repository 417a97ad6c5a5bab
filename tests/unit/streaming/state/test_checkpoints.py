"""The store of checkpoints: which ones are kept, damaged ones, races with pins, and background writes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from model import checkpoint
from model.checkpoint import list_checkpoints
from streaming.state.checkpoints import CheckpointStore, version_record


def write(checkpoints: CheckpointStore, step: int, value: float = 0.0) -> None:
    state = {"part": {"step": step, "array": np.full(4, value)}}
    checkpoints.write(state, {"step": step, "position": step * 10, "learned": step, "mrr": None})
    announced = checkpoints.take_finished(wait=True)
    assert announced is not None
    assert (announced.step, announced.position, announced.mrr) == (step, step * 10, None)


def steps(checkpoints: CheckpointStore) -> list[int]:
    return [int(url.rsplit("/", 1)[-1]) for url in list_checkpoints(checkpoints.url)]


def test_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(f"{tmp_path}/", keep=3, log_identity="log-1")
    assert checkpoints.load_newest() is None
    for step in (5, 9, 10, 100, 1000):
        write(checkpoints, step)
    assert steps(checkpoints) == [10, 100, 1000]
    found = checkpoints.load_newest()
    assert found is not None
    state, manifest, url = found
    assert (state["part"]["step"], manifest["log"], manifest["position"]) == (1000, "log-1", 10_000)
    assert version_record(url, manifest).path == f"{tmp_path}/000000001000"


def test_damaged_checkpoint_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = CheckpointStore(str(tmp_path))
    for step in (1, 2, 3, 4):
        write(checkpoints, step)
    (tmp_path / "000000000004" / "part.state").unlink()
    with (tmp_path / "000000000003" / "part.safetensors").open("r+b") as file:
        file.write(b"\xff")
    shutil.copytree(tmp_path / "000000000002", tmp_path / "000000000005")
    (tmp_path / "000000000005" / "manifest.json").unlink()
    found = checkpoints.load_newest()
    assert found is not None
    assert found[0]["part"]["step"] == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2  # one per damaged checkpoint


@pytest.mark.parametrize("keep", [1, 3])
def test_skipped_checkpoints_are_deleted_before_new_ones(tmp_path: Path, keep: int) -> None:
    checkpoints = CheckpointStore(str(tmp_path), keep=keep)
    for step in (700, 800, 900):
        write(checkpoints, step)
    for step in (1, 2, 3, 4):  # the others were damaged: the learner started over
        write(checkpoints, step)
        assert step in steps(checkpoints)
        assert len(steps(checkpoints)) <= keep
    assert steps(checkpoints) == [2, 3, 4][-keep:]


def test_pinned_checkpoint_is_kept_until_unpinned(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(str(tmp_path), keep=2)
    write(checkpoints, 1)
    checkpoint.pin(list_checkpoints(str(tmp_path))[0])
    for step in (2, 3, 4):
        write(checkpoints, step)
    assert steps(checkpoints) == [1, 3, 4]
    found = checkpoints.load_newest()
    assert found is not None
    assert found[1]["step"] == 4
    checkpoint.unpin(list_checkpoints(str(tmp_path))[0])
    write(checkpoints, 5)
    assert steps(checkpoints) == [4, 5]


class RacingFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system that calls `meanwhile` just before it deletes a checkpoint."""

    protocol = "racing"
    cachable = False
    meanwhile: Callable[[], None] = lambda: None

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        RacingFileSystem.meanwhile()
        super().rm(path, recursive, maxdepth)


def test_checkpoint_pinned_during_rotation_is_kept(tmp_path: Path) -> None:
    fsspec.register_implementation("racing", RacingFileSystem, clobber=True)
    RacingFileSystem.meanwhile = lambda: None
    write(CheckpointStore(str(tmp_path), keep=9), 1)
    write(CheckpointStore(str(tmp_path), keep=9), 2)
    second = str(tmp_path / "000000000002")
    RacingFileSystem.meanwhile = lambda: checkpoint.pin(second)  # while the first one is deleted
    checkpoints = CheckpointStore(f"racing://{tmp_path}", keep=1)
    write(checkpoints, 3)
    assert steps(checkpoints) == [2, 3]
    assert checkpoint.load(second)[1]["step"] == 2


def test_failed_deletion_is_repeated_by_the_next_write(tmp_path: Path) -> None:
    fsspec.register_implementation("racing", RacingFileSystem, clobber=True)

    def busy() -> None:
        raise OSError("Directory not empty")

    RacingFileSystem.meanwhile = busy
    checkpoints = CheckpointStore(f"racing://{tmp_path}", keep=1)
    write(checkpoints, 1)
    write(checkpoints, 2)
    assert steps(checkpoints) == [2]  # a folder without manifest is no checkpoint
    assert len(list(tmp_path.iterdir())) == 2
    RacingFileSystem.meanwhile = lambda: None
    write(checkpoints, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000003"]


def test_long_term_checkpoint_is_one_to_two_periods_old(tmp_path: Path) -> None:
    now = 1_700_000_000.0
    checkpoints = CheckpointStore(str(tmp_path), keep=2, log_identity="log", long_term_hours=2.0, clock=lambda: now)
    ages: list[list[float]] = []  # hours, of the kept checkpoints after each write
    for step in range(60):
        write(checkpoints, step)
        ages.append([(now - (1_700_000_000.0 + 600 * old)) / 3600 for old in steps(checkpoints)])
        now += 600.0
    assert all(len(age) <= 4 for age in ages)
    assert all(any(2.0 <= one <= 4.0 + 0.5 for one in age) for age in ages[14:])
    assert all(max(age) <= 4.5 for age in ages)
    oldest = {max(age) for age in ages[14:]}
    assert len(oldest) > 5  # its successor replaces it


def test_checkpoint_of_another_log_is_not_kept_long_term(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(str(tmp_path), keep=2, log_identity="old", long_term_hours=24.0)
    for step in (1, 2, 3):
        write(checkpoints, step)
    assert steps(checkpoints) == [1, 2, 3]
    checkpoints = CheckpointStore(str(tmp_path), keep=2, log_identity="new", long_term_hours=24.0)
    for step in (4, 5, 6, 7):
        write(checkpoints, step)
    assert steps(checkpoints) == [4, 6, 7]


def test_only_older_partial_writes_are_deleted(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(str(tmp_path), keep=3)
    for name in ("000000000002", "000000000004", "000000000009", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.state.part").write_bytes(b"half")
    checkpoint.pin(str(tmp_path / "000000000004"))  # `premiere verify` may be writing it
    write(checkpoints, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000004", "000000000005", "000000000009", "notes"]


def test_rewritten_checkpoint_is_complete(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(str(tmp_path))
    write(checkpoints, 7, value=1.0)
    write(checkpoints, 7, value=2.0)
    found = checkpoints.load_newest()
    assert found is not None
    assert found[0]["part"]["array"].tolist() == [2.0] * 4


def test_checkpoint_is_returned_once(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(str(tmp_path))
    assert checkpoints.take_finished() is None
    state = {"part": {"array": np.zeros(100)}}
    manifest = {"step": 1, "position": 2, "learned": 3, "mrr": 0.5}
    checkpoints.write(state, manifest)
    with pytest.raises(AssertionError, match="take_finished"):
        checkpoints.write(state, manifest)
    first = checkpoints.take_finished(wait=True)
    assert first is not None
    assert first.path == list_checkpoints(str(tmp_path))[0]
    assert checkpoints.take_finished(wait=True) is None


def test_write_error_is_raised(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    checkpoints = CheckpointStore(str(tmp_path / "blocked"))
    checkpoints.write({"part": {}}, {"step": 1, "position": 2, "learned": 3, "mrr": 0.5})
    with pytest.raises(OSError, match="blocked"):
        checkpoints.take_finished(wait=True)
