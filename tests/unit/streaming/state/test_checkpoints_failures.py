"""Failures of the checkpoint storage: full, forbidden, hanging. The learner continues and tries again."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from streaming.records import Version
from streaming.state.checkpoints import CheckpointStore
from tests.support.checkpoint_storage import FaultyFileSystem, faulty_url, start_write, steps, write
from tests.support.paths import ROOT
from tests.support.streams import deadline


def failures() -> float:
    return REGISTRY.get_sample_value("premiere_checkpoint_failures_total") or 0.0


def disk_full(path: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class ObjectStoreError(Exception):
    """An error class of an object store that is no OSError."""


def forbidden(path: str) -> None:
    raise ObjectStoreError("403")


@pytest.mark.parametrize("fault", [disk_full, forbidden])
def test_failed_write_is_logged_and_counted_and_the_next_one_is_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Callable[[str], None]
) -> None:
    checkpoints = CheckpointStore(faulty_url(tmp_path))
    write(checkpoints, 1)
    assert checkpoints.idle
    before = failures()
    FaultyFileSystem.on_write = fault
    start_write(checkpoints, 2)
    assert checkpoints.take_finished(wait=True) is None
    assert failures() == before + 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert not checkpoints.idle  # so the learner does not commit the position of the state that was not written
    checkpoints.url = faulty_url(tmp_path)
    write(checkpoints, 3)
    assert checkpoints.idle
    assert steps(checkpoints) == [1, 3]


@pytest.mark.parametrize("fails_at", ["part.state.part", "part.safetensors.part", "manifest.json.part"])
def test_failed_write_leaves_no_partial_files(tmp_path: Path, fails_at: str) -> None:
    checkpoints = CheckpointStore(faulty_url(tmp_path))
    write(checkpoints, 1, value=1.0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    FaultyFileSystem.on_write = lambda path: disk_full(path) if path.endswith(fails_at) else None
    for step in (1, 2):  # written again, and new
        start_write(checkpoints, step, value=1.0)
        assert checkpoints.take_finished(wait=True) is None
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001"]


def test_partial_writes_are_deleted_before_the_next_write(tmp_path: Path) -> None:
    (tmp_path / "000000000001").mkdir()
    (tmp_path / "000000000001" / "part.state").write_bytes(b"half")
    checkpoints = CheckpointStore(faulty_url(tmp_path))

    def full_until_freed(path: str) -> None:
        if (tmp_path / "000000000001").exists():
            disk_full(path)

    FaultyFileSystem.on_write = full_until_freed
    write(checkpoints, 2)
    assert steps(checkpoints) == [2]


def test_old_checkpoints_are_deleted_after_a_failed_write(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(CheckpointStore(str(tmp_path)), step)
    checkpoints = CheckpointStore(faulty_url(tmp_path), keep=2)  # lowered to free space
    FaultyFileSystem.on_write = lambda path: disk_full(path) if len(steps(checkpoints)) > 2 else None
    start_write(checkpoints, 5)
    assert checkpoints.take_finished(wait=True) is None
    write(checkpoints, 6)
    assert steps(checkpoints) == [4, 6]


def test_unwritable_folder_does_not_stop_the_learner(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    checkpoints = CheckpointStore(str(tmp_path / "blocked"))
    before = failures()
    start_write(checkpoints, 1)
    assert checkpoints.take_finished(wait=True) is None
    assert failures() == before + 1


def test_error_that_is_no_storage_failure_is_raised(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(str(tmp_path))
    checkpoints.write({"part": {"set": object()}}, {"step": 1, "position": 2, "learned": 3, "mrr": 0.5})
    with pytest.raises(TypeError):
        checkpoints.take_finished(wait=True)


def test_hanging_write_is_waited_for_only_up_to_the_time_limit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resume, before = threading.Event(), failures()
    checkpoints = CheckpointStore(faulty_url(tmp_path), write_timeout_s=0.01)

    def hang(path: str) -> None:
        resume.wait(120)

    FaultyFileSystem.on_write = hang
    start_write(checkpoints, 1)
    results: list[Version | None] = []

    def learn() -> None:
        for step in (2, 3):
            results.append(checkpoints.take_finished(wait=True))
            start_write(checkpoints, step)

    learner = threading.Thread(target=learn, daemon=True)
    learner.start()
    learner.join(60)
    assert results == [None, None]  # else it still waits for the hanging write
    assert failures() == before + 3  # overdue, and two skipped ones
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3
    resume.set()
    is_late, version = deadline(60), None
    while version is None and not is_late():
        version = checkpoints.take_finished(wait=True)
    assert version is not None
    assert version.step == 1
    assert not checkpoints.idle  # the states of steps 2 and 3 are in no checkpoint
    checkpoints.write_timeout_s = 60
    write(checkpoints, 4)
    assert checkpoints.idle
    assert steps(checkpoints) == [1, 4]


def test_process_exits_while_a_write_hangs(tmp_path: Path) -> None:
    program = f"""
import threading
from pathlib import Path
from streaming.state import background_write, checkpoints
from tests.support.checkpoint_storage import FaultyFileSystem, faulty_url, start_write
background_write.EXIT_TIMEOUT_S = 0.01
store = checkpoints.CheckpointStore(faulty_url(Path({str(tmp_path)!r})))
FaultyFileSystem.on_write = lambda path: threading.Event().wait()
start_write(store, 1)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_write_that_is_nearly_finished_completes_at_the_exit(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from streaming.state.checkpoints import CheckpointStore
from tests.support.checkpoint_storage import FaultyFileSystem, faulty_url, start_write
store = CheckpointStore(faulty_url(Path({str(tmp_path)!r})))
FaultyFileSystem.on_write = lambda path: time.sleep(0.1)
start_write(store, 1)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
    assert steps(CheckpointStore(str(tmp_path))) == [1]
