"""The locks on the data folder: shared by flows, exclusive for commands that delete its content and for each worker."""

import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.local import data_lock

HOLDER = """
import sys, time
from pathlib import Path
from infra.local import data_lock
folder = Path(sys.argv[1])
locks = data_lock.hold_shared(folder), data_lock.hold_flow(folder, "learn", 0)
print("held", flush=True)
time.sleep(600)
"""


def assert_no_flow_holds(folder: Path) -> None:
    with data_lock.hold_exclusive(folder):
        pass


def test_shared_locks_prevent_the_exclusive_lock(tmp_path: Path) -> None:
    held, other = data_lock.hold_shared(tmp_path), data_lock.hold_shared(tmp_path)
    for file in (held, other):
        assert file is not None
        with pytest.raises(SettingsError, match="Flows are running on"), data_lock.hold_exclusive(tmp_path):
            pass
        file.close()
    assert_no_flow_holds(tmp_path)


def test_exclusive_lock_prevents_shared_locks(tmp_path: Path) -> None:
    with data_lock.hold_exclusive(tmp_path), pytest.raises(SettingsError, match="`premiere reset` is deleting"):
        data_lock.hold_shared(tmp_path)
    file = data_lock.hold_shared(tmp_path)
    assert file is not None
    file.close()


def test_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SettingsError, match="Flows are running on"), data_lock.hold_exclusive(tmp_path):
            pass
        with pytest.raises(SettingsError, match="flow learn is already running"):
            data_lock.hold_flow(tmp_path, "learn", 0)
        holder.kill()
    assert_no_flow_holds(tmp_path)
    again = data_lock.hold_flow(tmp_path, "learn", 0)
    assert again is not None
    again.close()


def test_each_worker_of_a_flow_runs_once(tmp_path: Path) -> None:
    held = [data_lock.hold_flow(tmp_path, *worker) for worker in (("features", 0), ("features", 1), ("titles", 0))]
    for worker, file in zip((0, 1), held, strict=False):
        with pytest.raises(SettingsError, match=f"Worker {worker} of the flow features is already running"):
            data_lock.hold_flow(tmp_path, "features", worker)
        assert file is not None
        file.close()
    for worker in (0, 1):
        again = data_lock.hold_flow(tmp_path, "features", worker)
        assert again is not None
        again.close()


def test_folder_that_cannot_be_written_needs_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert data_lock.hold_shared(tmp_path / "file" / "data") is None
    assert data_lock.hold_flow(tmp_path / "file" / "data", "publish", 0) is None
