"""Compaction keeps all rows in fewer files, also after a crash at any step, and removes the rows of erased users."""

import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from streaming.stores import compaction, erasure
from streaming.stores.compaction import CompactionResult, CompactionRunningError, DamagedFileError
from streaming.stores.parquet_log import STAGING_FOLDER
from tests.support.offline_log import REQUEST, ROW, TODAY, Epochs, moment, row, run, stream
from tests.support.paths import ROOT


def request(user: str, second: int, day: int) -> dict[str, Any]:
    return {"user_id": user, "appended": moment(day, second)}


def age(folder: Path, hours: float) -> None:
    for path in folder.rglob("p*.parquet"):
        os.utime(path, (time.time() - 3600 * hours,) * 2)


def rows(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(root).to_pylist()
    return sorted(found, key=lambda one: (one["partition"], one["offset"], one["created"]))


def flat(epochs: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return sorted((one for epoch in epochs for one in epoch), key=lambda one: (one["partition"], one["offset"]))


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("*.parquet"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "user_activity"


def test_files_of_past_days_are_merged_into_one_sorted_file_per_day(tmp_path: Path, root: Path) -> None:
    Epochs(tmp_path).write(*stream())
    done = run(tmp_path)["user_activity"]
    assert (done.merged, done.days, done.erased, done.expired) == (6, 3, 0, 0)
    found = names(root)
    assert [name[:14] for name in found[:3]] == ["day-2026-05-07", "day-2026-05-08", "day-2026-05-09"]
    assert len(found) == 4  # today's file stays
    assert rows(root) == flat(stream())
    first = pq.read_table(root / found[0]).to_pylist()
    assert first == sorted(first, key=lambda one: (one["user_id"], one["event_timestamp"]))
    assert len(first) == 21
    assert pq.read_table(root).schema == ROW
    assert run(tmp_path)["user_activity"] == CompactionResult("user_activity")
    assert names(root) == found


def test_late_file_is_merged_into_its_day_file(tmp_path: Path, root: Path) -> None:
    epochs = Epochs(tmp_path).write(*stream((2, 2, 1)))
    run(tmp_path)
    epochs.write([row("late", 50, 2)], [row("later", 51, 0)])
    run(tmp_path)
    assert [name[:14] for name in names(root)[:2]] == ["day-2026-05-08", "day-2026-05-09"]
    assert len(names(root)) == 3
    assert len(rows(root)) == 23


def test_day_file_has_bounded_row_groups(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP_SIZE", 10)
    Epochs(tmp_path).write(*stream((2,) * 9 + (0,)))
    run(tmp_path)
    (day,) = root.glob("day-*.parquet")
    sizes = [pq.read_metadata(day).row_group(n).num_rows for n in range(pq.read_metadata(day).num_row_groups)]
    assert sizes == [10] * 6 + [3]
    assert rows(root) == flat(stream((2,) * 9 + (0,)))


def test_newest_epoch_is_not_merged_so_resume_writes_no_duplicate(tmp_path: Path, root: Path) -> None:
    epochs, days = Epochs(tmp_path), stream((3, 3, 2))
    epochs.write(*days[:2], close=False)
    before = epochs.state
    epochs.write(days[2])  # published at the end of the run, but its epoch is not durable
    run(tmp_path)
    assert len(names(root)) == 2  # the day file of the first two epochs, and the newest epoch
    epochs.state = before
    epochs.write(days[2])
    assert rows(root) == flat(days)


def test_all_files_of_the_newest_epoch_are_kept(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.stores.parquet_log.MAX_BUFFERED_ROWS", 3)
    part = Epochs(tmp_path).sink.build_part("offline", "p000", None)
    for number in range(9):
        part.write_batch([[row("u", number, 5)]])
    part.snapshot()
    part.close()
    assert len(names(root)) == 3
    assert run(tmp_path)["user_activity"].merged == 0


def test_newest_epoch_is_merged_once_it_cannot_be_redelivered(tmp_path: Path, root: Path) -> None:
    Epochs(tmp_path).write(*stream((20, 20)))
    run(tmp_path, redelivery_days=15)
    assert [name[:14] for name in names(root)] == ["day-2026-04-20"]
    assert rows(root) == flat(stream((20, 20)))


def test_expired_days_are_deleted(tmp_path: Path, root: Path) -> None:
    Epochs(tmp_path).write(*stream((40, 31, 30, 29, 1, 0)))
    done = run(tmp_path, keep=30)["user_activity"]
    assert done.expired == 2
    assert {one["created"].date() for one in rows(root)} == {moment(day).date() for day in (30, 29, 1, 0)}


def test_erased_users_rows_are_removed_up_to_the_request(tmp_path: Path, root: Path) -> None:
    days = stream()
    epochs = Epochs(tmp_path).write(*days)
    run(tmp_path)  # some rows are in day files, the others in the newest file
    Epochs(tmp_path, "user_erasures", REQUEST).write([request("u1", 45, 0), request("nobody", 3, 0)])
    epochs.write([row("u1", 49, 0), row("u1", 5, 0, partition=7)])
    done = run(tmp_path)["user_activity"]
    covered = [one for one in flat(days) if one["user_id"] == "u1" and one["offset"] <= 45]
    assert done.erased == len(covered) + 1  # and an earlier row of another partition
    left = rows(root)
    assert [one["offset"] for one in left if one["user_id"] == "u1"] == [46, 49]
    assert [one for one in left if one["user_id"] != "u1"] == [one for one in flat(days) if one["user_id"] != "u1"]
    assert run(tmp_path)["user_activity"].erased == 0


def test_reprocessed_rows_of_an_erased_user_are_removed_again(tmp_path: Path, root: Path) -> None:
    epochs = Epochs(tmp_path).write(*stream((1, 0)))
    Epochs(tmp_path, "user_erasures", REQUEST).write([request("u1", 30, 0)])
    run(tmp_path)
    epochs.write(*stream((1, 0)))  # the flow reprocesses its log from the start
    assert run(tmp_path)["user_activity"].erased == 3
    assert not [one for one in rows(root) if one["user_id"] == "u1"]


def test_applied_requests_are_deleted_once_no_covered_row_can_appear(tmp_path: Path, root: Path) -> None:
    epochs = Epochs(tmp_path).write(*stream((1,)))
    Epochs(tmp_path, "user_erasures", REQUEST).write([request("u1", 99, 0), request("nobody", 99, 0)])
    run(tmp_path)
    assert len(names(tmp_path / "user_erasures")) == 1  # a sink may have staged a covered row
    epochs.write([row("u1", 50, 0)], close=False)
    age(tmp_path, 2)  # the flow died two hours ago: the row is staged and not yet published
    run(tmp_path)
    assert len(names(tmp_path / "user_erasures")) == 1
    epochs.write([row("u2", 51, 0)])
    run(tmp_path)
    assert "u1" not in {one["user_id"] for one in rows(root)}
    assert names(tmp_path / "user_erasures") == []


def test_requests_beyond_the_limit_of_a_run_wait_for_the_next(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "MAX_REQUESTS", 2)
    Epochs(tmp_path).write(*stream())
    requests = [request(f"u{n}", 99, 0) for n in (1, 2, 3)]
    Epochs(tmp_path, "user_erasures", REQUEST).write(requests[:2], requests[2:])
    run(tmp_path)
    assert {one["user_id"] for one in rows(root)} == {"u0", "u3", "u4"}
    age(tmp_path, 2)
    run(tmp_path)
    run(tmp_path)
    assert {one["user_id"] for one in rows(root)} == {"u0", "u4"}


DYING_COMPACTION = """
import os, sys
from datetime import date
from pathlib import Path
from streaming.stores import compaction

left = int(sys.argv[2])

def dying(name):
    real = getattr(os, name)
    def step(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return real(*arguments, **more)
    return step

os.replace, os.unlink = dying("replace"), dying("unlink")
compaction.compact(Path(sys.argv[1]), date(2026, 5, 10), {"user_activity": 0}, "user_erasures", 15)
"""


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8])
def test_crash_at_any_step_leaves_each_row_once(tmp_path: Path, root: Path, after: int) -> None:
    Epochs(tmp_path).write(*stream())
    Epochs(tmp_path, "user_erasures", REQUEST).write([request("u1", 45, 0)])
    wanted = [one for one in flat(stream()) if one["user_id"] != "u1" or one["offset"] > 45]
    program = [sys.executable, "-c", DYING_COMPACTION, str(tmp_path), str(after)]
    died = subprocess.run(program, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, timeout=60)
    assert died.returncode == 9
    run(tmp_path)
    assert rows(root) == wanted
    assert len(names(root)) == 4
    assert not list(tmp_path.rglob("*.draft"))


def test_second_compaction_is_refused_until_the_lock_is_released(tmp_path: Path) -> None:
    Epochs(tmp_path).write(*stream())
    with open(tmp_path / STAGING_FOLDER / "compaction.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CompactionRunningError, match="running"):
            run(tmp_path)
    assert run(tmp_path)["user_activity"].merged == 6


@pytest.mark.parametrize("compacted", [False, True])
def test_damaged_file_is_named_in_the_error(tmp_path: Path, root: Path, compacted: bool) -> None:
    Epochs(tmp_path).write(*stream())
    if compacted:
        run(tmp_path)
    damaged = root / names(root)[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(DamagedFileError, match=damaged.name):
        run(tmp_path)


def test_random_writes_compactions_and_restarts_keep_all_rows(tmp_path: Path, root: Path) -> None:
    draw, epochs, written = random.Random(3), Epochs(tmp_path), list[dict[str, Any]]()
    for number in range(60):
        epoch = [row(f"u{draw.randrange(4)}", 10 * number + i, 20 - number // 3) for i in range(draw.randrange(1, 5))]
        epochs.write(epoch)
        written += epoch
        if draw.random() < 0.3:
            run(tmp_path, TODAY - timedelta(days=20 - number // 3))
        if draw.random() < 0.2:
            epochs.state = epochs.state if draw.random() < 0.7 else None  # the recovery store was lost
    run(tmp_path)
    assert rows(root) == flat([written])
    assert len(names(root)) < 30
