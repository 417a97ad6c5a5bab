"""The store of checkpoints: which one is loaded, and background writes."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import FORMAT, CheckpointFormatError, list_checkpoints, read_manifest
from streaming.errors import OwnedElsewhereError
from streaming.state.checkpoints import CheckpointStore, version_record
from tests.support.checkpoint_storage import FaultyFileSystem, change_format, faulty_url, steps, write
from tests.support.ownership import FixedOwner


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


def test_checkpoint_of_this_log_is_loaded_before_a_later_one_of_another_log(tmp_path: Path) -> None:
    write(CheckpointStore(str(tmp_path), log_identity="mine"), 5)
    write(CheckpointStore(str(tmp_path), log_identity="other"), 900)
    found = CheckpointStore(str(tmp_path), log_identity="mine").load_newest()
    assert found is not None
    assert found[1]["step"] == 5
    found = CheckpointStore(str(tmp_path), log_identity="third").load_newest()
    assert found is not None
    assert found[1]["step"] == 900  # its weights


def test_checkpoints_of_another_format_only_are_refused_with_their_size(tmp_path: Path) -> None:
    for step in (1, 2):
        write(CheckpointStore(str(tmp_path)), step)
        change_format(tmp_path / f"{step:012d}", FORMAT - 1)
    (tmp_path / "000000000002" / "part.state").write_bytes(bytes(3_400_000))
    with pytest.raises(CheckpointFormatError, match=rf"2 .*\(3\.4 MB\).*{FORMAT - 1}.*{FORMAT}.*PREMIERE_CHECKPOINTS"):
        CheckpointStore(str(tmp_path)).load_newest()


def test_checkpoint_of_another_format_is_reported_with_its_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(CheckpointStore(str(tmp_path)), 1)
    write(CheckpointStore(str(tmp_path)), 2)
    change_format(tmp_path / "000000000002", FORMAT + 1)
    (tmp_path / "000000000002" / "part.state").write_bytes(bytes(1_200_000))
    found = CheckpointStore(str(tmp_path)).load_newest()
    assert found is not None
    assert found[1]["step"] == 1
    assert [("1.2 MB" in text, "000000000002" in text) for text in caplog.messages] == [(True, True)]


def test_replaced_learner_writes_and_deletes_nothing(tmp_path: Path) -> None:
    older = FixedOwner(7)
    first = CheckpointStore(str(tmp_path), keep=2, log_identity="log", owner=older)
    for step in (1, 2):
        write(first, step)
    second = CheckpointStore(str(tmp_path), keep=9, log_identity="log", owner=FixedOwner(8))
    write(second, 3)  # the other learner does not know yet that it was replaced
    with pytest.raises(OwnedElsewhereError, match="000000000003"):
        write(first, 4)
    assert steps(second) == [1, 2, 3]
    older.replaced = True
    with pytest.raises(OwnedElsewhereError, match="taken over"):
        write(first, 4)
    assert steps(second) == [1, 2, 3]


def test_learner_that_is_replaced_during_a_write_deletes_nothing(tmp_path: Path) -> None:
    owner = FixedOwner(7)
    checkpoints = CheckpointStore(faulty_url(tmp_path), keep=1, log_identity="log", owner=owner)
    write(checkpoints, 1)

    def replace_owner(path: str) -> None:
        owner.replaced = True

    FaultyFileSystem.on_write = replace_owner
    with pytest.raises(OwnedElsewhereError):
        write(checkpoints, 2)
    assert steps(checkpoints)[0] == 1


def test_number_of_the_owner_stands_beside_the_compared_files(tmp_path: Path) -> None:
    manifests = []
    for number in (7, 8):
        folder = tmp_path / str(number)
        write(CheckpointStore(str(folder), log_identity="log", owner=FixedOwner(number)), 1)
        manifests.append(read_manifest(f"{folder}/000000000001"))
    assert [manifest["owner"] for manifest in manifests] == [7, 8]
    assert manifests[0]["files"] == manifests[1]["files"]
