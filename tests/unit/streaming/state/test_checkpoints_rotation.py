"""Rotation of checkpoints: what it keeps by number and by age, and what it must never delete."""

from pathlib import Path
from typing import Final

import pytest

from model import checkpoint
from model.checkpoint import FORMAT, list_checkpoints
from streaming.state.checkpoints import SHORT_RETENTION_HOURS, CheckpointStore
from tests.support.checkpoint_storage import FaultyFileSystem, change_format, faulty_url, start_write, steps, write

START: Final = 1_700_000_000.0
PERIODS: Final = (*SHORT_RETENTION_HOURS, 24.0)


@pytest.mark.parametrize("keep", [1, 3])
def test_later_checkpoints_are_never_deleted(tmp_path: Path, keep: int) -> None:
    checkpoints = CheckpointStore(str(tmp_path), keep=keep)
    for step in (700, 800, 900):
        write(checkpoints, step)
    later = steps(checkpoints)
    for step in (1, 2, 3, 4):  # the later ones were damaged: the learner started over
        write(checkpoints, step)
    assert steps(checkpoints) == [2, 3, 4][-keep:] + later
    write(checkpoints, 1000)
    assert steps(checkpoints) == [2, 3, 4, *later, 1000][-keep:]


def test_stalled_learner_deletes_no_checkpoint_of_its_successor(tmp_path: Path) -> None:
    stalled = CheckpointStore(str(tmp_path), keep=2, log_identity="log")
    write(stalled, 240)
    write(stalled, 700)
    active = CheckpointStore(str(tmp_path), keep=2, log_identity="log")
    for step in (720, 740, 760):
        write(active, step)
    assert steps(active) == [740, 760]
    for step in (280, 340, 750, 770, 780, 790):  # it wakes, behind the active one and then ahead of it
        start_write(stalled, step)
        stalled.take_finished(wait=True)
    assert set(steps(active)) >= {740, 760}
    assert checkpoint.load(f"{tmp_path}/{740:012d}")[1]["step"] == 740
    assert steps(active) == [740, 760, 780, 790]  # it rotates its own ones


def test_stalled_learner_overwrites_no_checkpoint_of_its_successor(tmp_path: Path) -> None:
    stalled = CheckpointStore(str(tmp_path), log_identity="log")
    write(CheckpointStore(str(tmp_path), log_identity="log"), 5, value=1.0)
    start_write(stalled, 5, value=2.0)
    assert stalled.take_finished(wait=True) is None
    assert checkpoint.load(f"{tmp_path}/{5:012d}")[0]["part"]["array"].tolist() == [1.0] * 4


@pytest.mark.parametrize("other_format", [FORMAT - 1, FORMAT + 1])
def test_checkpoint_of_another_format_is_never_deleted_or_overwritten(tmp_path: Path, other_format: int) -> None:
    for step in (1, 2, 3):
        write(CheckpointStore(str(tmp_path)), step)
        change_format(tmp_path / f"{step:012d}", other_format)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    checkpoints = CheckpointStore(str(tmp_path), keep=1)
    start_write(checkpoints, 3)
    assert checkpoints.take_finished(wait=True) is None
    for step in (4, 5, 6):
        write(checkpoints, step)
    assert steps(checkpoints) == [1, 2, 3, 6]
    assert {path: path.read_bytes() for path in before} == before


def test_checkpoint_of_another_log_is_never_deleted_unless_that_log_has_ended(tmp_path: Path) -> None:
    for log_identity, step in (("production", 1), ("embedded-1", 2), ("embedded-2", 3)):
        write(CheckpointStore(str(tmp_path), log_identity=log_identity), step)
    checkpoints = CheckpointStore(str(tmp_path), 2, "embedded-3", SHORT_RETENTION_HOURS, ended_logs="embedded-")
    write(checkpoints, 4)
    assert steps(checkpoints) == [1, 3, 4]
    for step in (5, 6):
        write(checkpoints, step)
    assert steps(checkpoints) == [1, 4, 5, 6]  # 4 will be 10 minutes old


def test_copy_of_a_checkpoint_under_another_name_is_never_deleted(tmp_path: Path) -> None:
    write(CheckpointStore(str(tmp_path)), 1)
    (tmp_path / "000000000001").rename(tmp_path / "000000000000")
    checkpoints = CheckpointStore(str(tmp_path), keep=1)
    for step in (2, 3):
        write(checkpoints, step)
    assert steps(checkpoints) == [0, 3]


@pytest.mark.parametrize("hours", PERIODS)
def test_checkpoints_of_ten_minutes_one_hour_and_one_day_ago_are_kept(tmp_path: Path, hours: float) -> None:
    now, interval = START, hours / 3
    checkpoints = CheckpointStore(str(tmp_path), 2, "log", PERIODS, clock=lambda: now)
    ages: list[list[float]] = []  # hours, of the kept checkpoints after each write
    for step in range(30):
        write(checkpoints, step)
        ages.append([interval * (step - kept) for kept in steps(checkpoints)])
        now += interval * 3600
    assert max(map(len, ages)) <= 2 + 2 * len(PERIODS)
    assert all(any(hours <= age <= 2 * hours + interval for age in kept) for kept in ages[6:])
    assert max(map(max, ages)) <= 2 * max(PERIODS) + interval


def test_retention_period_of_zero_keeps_nothing(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(str(tmp_path), keep=2, retention_hours=(0.0,))
    for step in (1, 2, 3):
        write(checkpoints, step)
    assert steps(checkpoints) == [2, 3]


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


def test_checkpoint_pinned_during_rotation_is_kept(tmp_path: Path) -> None:
    url = faulty_url(tmp_path)
    write(CheckpointStore(str(tmp_path), keep=9), 1)
    write(CheckpointStore(str(tmp_path), keep=9), 2)
    second = str(tmp_path / "000000000002")
    FaultyFileSystem.on_delete = lambda _: checkpoint.pin(second)  # while the first one is deleted
    checkpoints = CheckpointStore(url, keep=1)
    write(checkpoints, 3)
    assert steps(checkpoints) == [2, 3]
    assert checkpoint.load(second)[1]["step"] == 2


def test_failed_deletion_is_repeated_by_the_next_write(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(faulty_url(tmp_path), keep=1)

    def busy(path: str) -> None:
        raise OSError("Directory not empty")

    FaultyFileSystem.on_delete = busy
    write(checkpoints, 1)
    write(checkpoints, 2)
    assert steps(checkpoints) == [2]  # a folder without manifest is no checkpoint
    assert len(list(tmp_path.iterdir())) == 2
    checkpoints.url = faulty_url(tmp_path)
    write(checkpoints, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000003"]


def test_only_earlier_partial_writes_from_before_the_start_are_deleted(tmp_path: Path) -> None:
    def plant(*names: str) -> None:
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "part.state.part").write_bytes(b"half")

    plant("000000000002", "000000000004", "000000000009", "notes")
    checkpoint.pin(str(tmp_path / "000000000004"))  # `premiere verify` may be writing it
    checkpoints = CheckpointStore(str(tmp_path), keep=3)
    plant("000000000003")  # the active learner may be writing it
    write(checkpoints, 5)
    kept = ["000000000003", "000000000004", "000000000005", "000000000009", "notes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
