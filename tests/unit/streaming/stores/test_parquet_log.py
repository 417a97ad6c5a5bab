"""The offline log contains each row once after a crash at any point, also between the phases of the commit."""

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main

from streaming.errors import StreamError
from streaming.stores.parquet_log import ParquetSink

SCHEMA = pa.schema([("id", pa.int64()), ("tags", pa.list_(pa.string()))])
EACH_ITEM = timedelta(0)
WHOLE_RUN = timedelta(days=1)


def rows(*ids: int) -> list[dict[str, Any]]:
    return [{"id": number, "tags": ["🎬", None, str(number)]} for number in ids]


def flow(root: Path, batches: Sequence[Any], broken_at: object = None, parts: int = 1) -> Dataflow:
    def check(batch: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        if batch == broken_at:
            raise RuntimeError("a crash")
        return str(batch[0]["id"] % 7) if batch else "0", batch

    dataflow = Dataflow("offline_test")
    stream = op.map("check", op.input("input", dataflow, TestingSource(batches)), check)
    op.output("offline", stream, ParquetSink(root, parts, SCHEMA))
    return dataflow


def published(root: Path) -> list[int]:
    return sorted(pq.read_table(root)["id"].to_pylist()) if any(root.glob("*.parquet")) else []


def staged(root: Path) -> list[Path]:
    return sorted(root.parent.rglob("_staging/**/*.parquet*"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repository" / "user_activity"


@pytest.fixture
def recovery(tmp_path: Path) -> RecoveryConfig:
    init_db_dir(tmp_path, 1)
    return RecoveryConfig(str(tmp_path))


def test_completed_run_publishes_every_row(root: Path, recovery: RecoveryConfig) -> None:
    run_main(flow(root, [rows(1, 2), rows(3), [], rows(4)]), epoch_interval=EACH_ITEM, recovery_config=recovery)
    assert published(root) == [1, 2, 3, 4]
    assert staged(root) == []
    assert pq.read_table(root).schema == SCHEMA
    assert pq.read_table(root)["tags"][0].as_py() == ["🎬", None, "1"]


def test_run_of_one_epoch_is_published(root: Path, recovery: RecoveryConfig) -> None:
    run_main(flow(root, [rows(1), rows(2)]), epoch_interval=WHOLE_RUN, recovery_config=recovery)
    assert published(root) == [1, 2]
    run_main(flow(root, [rows(1), rows(2), rows(3)]), epoch_interval=WHOLE_RUN, recovery_config=recovery)
    assert published(root) == [1, 2, 3]


def test_rows_are_published_only_after_their_epoch_is_durable(root: Path, recovery: RecoveryConfig) -> None:
    seen: list[list[int]] = []

    def record_published(batch: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        seen.append(published(root))
        return "0", batch

    dataflow = Dataflow("offline_test")
    batches = [rows(1), rows(2), [], rows(3)]
    stream = op.map("record", op.input("input", dataflow, TestingSource(batches)), record_published)
    op.output("offline", stream, ParquetSink(root, 1, SCHEMA))
    run_main(dataflow, epoch_interval=EACH_ITEM, recovery_config=recovery)
    assert seen == [[], [], [1], [1, 2]]  # the empty batch published 2


def test_abort_loses_and_duplicates_no_row(root: Path, recovery: RecoveryConfig) -> None:
    batches = [rows(1), rows(2), TestingSource.ABORT(), rows(3), rows(4)]  # one: the source does not count it
    for _ in range(2):
        run_main(flow(root, batches), epoch_interval=EACH_ITEM, recovery_config=recovery)
    assert published(root) == [1, 2, 3, 4]
    assert staged(root) == []


@pytest.mark.parametrize("epoch", [EACH_ITEM, WHOLE_RUN])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("at", range(6))
def test_error_at_any_batch_loses_and_duplicates_no_row(
    root: Path, recovery: RecoveryConfig, at: int, parts: int, epoch: timedelta
) -> None:
    batches = [rows(n, n + 1) for n in range(0, 12, 2)]
    with pytest.raises(BytewaxRuntimeError):
        run_main(flow(root, batches, batches[at], parts), epoch_interval=epoch, recovery_config=recovery)
    run_main(flow(root, batches, parts=parts), epoch_interval=epoch, recovery_config=recovery)
    assert published(root) == list(range(12))
    assert staged(root) == []


class CrashingSink(ParquetSink):
    """A sink whose process dies after the given call of a method of its partition."""

    def __init__(self, root: Path, where: str, at: int) -> None:
        super().__init__(root, 1, SCHEMA)
        self.where, self.at = where, at

    def build_part(self, step_id: str, for_part: str, resume_state: tuple[Any, ...] | None) -> Any:
        part = super().build_part(step_id, for_part, resume_state)
        method, calls = getattr(part, self.where), 0

        def die(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            result = method(*arguments)
            if calls == self.at:
                os._exit(9)
            return result

        setattr(part, self.where, die)
        return part


def run_and_crash(root: Path, recovery: str, where: str, at: int, epoch: timedelta) -> None:
    dataflow = Dataflow("offline_test")
    stream = op.map(
        "check", op.input("input", dataflow, TestingSource([rows(n) for n in range(5)])), lambda b: ("0", b)
    )
    op.output("offline", stream, CrashingSink(root, where, at))
    run_main(dataflow, epoch_interval=epoch, recovery_config=RecoveryConfig(recovery))


@pytest.mark.parametrize(
    ("where", "at", "epoch"),
    [
        ("_stage_rows", 1, EACH_ITEM),  # staged, in no snapshot
        ("snapshot", 1, EACH_ITEM),  # in a snapshot that is not durable yet
        ("snapshot", 3, EACH_ITEM),
        ("_publish", 2, EACH_ITEM),  # published, before a later snapshot records it
        ("close", 1, EACH_ITEM),  # published before the last epoch is durable
        ("close", 1, WHOLE_RUN),  # the same in the first epoch: no snapshot exists
    ],
)
def test_kill_between_phases_loses_and_duplicates_no_row(
    root: Path, tmp_path: Path, recovery: RecoveryConfig, where: str, at: int, epoch: timedelta
) -> None:
    code = (
        "from datetime import timedelta; from pathlib import Path;"
        "from tests.unit.streaming.stores.test_parquet_log import run_and_crash;"
        f"run_and_crash(Path({str(root)!r}), {str(tmp_path)!r}, {where!r}, {at}, timedelta(days={epoch.days}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    run_main(flow(root, [rows(n) for n in range(5)]), epoch_interval=epoch, recovery_config=recovery)
    assert published(root) == list(range(5))
    assert staged(root) == []


def test_new_recovery_store_keeps_published_rows(root: Path, tmp_path: Path) -> None:
    for run in range(2):
        store = tmp_path / f"store{run}"
        store.mkdir()
        init_db_dir(store, 1)
        batches = [rows(10 * run + n) for n in range(3)]
        run_main(flow(root, batches), epoch_interval=EACH_ITEM, recovery_config=RecoveryConfig(str(store)))
    more = [rows(n) for n in (10, 11, 12, 13)]
    run_main(flow(root, more), epoch_interval=EACH_ITEM, recovery_config=RecoveryConfig(str(tmp_path / "store1")))
    assert published(root) == [0, 1, 2, 10, 11, 12, 13]


def test_long_epoch_is_staged_in_several_files(
    root: Path, recovery: RecoveryConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.stores.parquet_log.MAX_BUFFERED_ROWS", 2)
    run_main(flow(root, [rows(1, 2), rows(3), rows(4), rows(5)]), epoch_interval=WHOLE_RUN, recovery_config=recovery)
    assert published(root) == [1, 2, 3, 4, 5]
    assert len(list(root.glob("*.parquet"))) == 3


def test_deleted_file_is_logged_and_the_run_continues(
    root: Path, recovery: RecoveryConfig, caplog: pytest.LogCaptureFixture
) -> None:
    run_main(flow(root, [rows(1), rows(2)]), epoch_interval=EACH_ITEM, recovery_config=recovery)
    for file in root.glob("*.parquet"):
        file.unlink()
    run_main(flow(root, [rows(1), rows(2), rows(3)]), epoch_interval=EACH_ITEM, recovery_config=recovery)
    assert published(root) == [3]
    assert "the offline log lacks its rows" in caplog.text


def test_unknown_state_format_is_rejected(root: Path) -> None:
    with pytest.raises(StreamError, match="format 2"):
        ParquetSink(root, 1, SCHEMA).build_part("offline", "p000", (2, "f00", 0, ()))
