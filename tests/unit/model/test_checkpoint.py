"""Checkpoint folders: exact round trips, detection of damage, missing files, foreign paths and other formats."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import FORMAT, CheckpointError, list_checkpoints, load, read_manifest, remove, save
from tests.support.checkpoint_storage import FaultyFileSystem, faulty_url
from tests.support.learner import state_differences

STATE: dict[str, Any] = {
    "a": {
        "tree": {"tuple": (1, 2.5, None, True), "list": [[], {}, ["x", b"\0\xff"]], 7: "an integer key"},
        "big": [2**127 + 1, -(2**64), 2**63 - 1, -(2**63)],
        "numbers": [0.1, float("inf"), float("-inf"), float("nan"), -0.0],
        "empty": np.zeros((0, 3), np.int16),
    },
    "b": {
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "tensors": [torch.arange(6).reshape(2, 3), torch.tensor([True, False]), torch.zeros(0)],
        "arrays": (np.array([np.nan, -0.0, 1e-45], np.float32), np.array(3, np.int8), np.arange(12.0).reshape(3, 4).T),
        "halves": np.array([0.5, 65504], np.float16),
        "generator": torch.Generator().manual_seed(3).get_state(),
        "rng": np.random.default_rng(3).bit_generator.state,
    },
}
MANIFEST = {"step": 12, "position": 340, "learned": 99, "mrr": 0.25}


@pytest.fixture
def url(tmp_path: Path) -> str:
    save(str(tmp_path / "one"), STATE, MANIFEST)
    return str(tmp_path / "one")


def test_load_restores_every_bit(url: str) -> None:
    state, manifest = load(url)
    assert state_differences(state, STATE) == []
    assert {key: manifest[key] for key in MANIFEST} == MANIFEST
    assert state["b"]["scalar"].shape == ()
    assert isinstance(state["b"]["tensors"][0], torch.Tensor)
    assert isinstance(state["b"]["arrays"][1], np.ndarray)


def test_loaded_arrays_are_writable(url: str) -> None:
    state, _ = load(url)
    state["b"]["arrays"][0][0] = 1
    state["b"]["tensors"][0][0, 0] = 1


def test_load_of_a_part_needs_only_its_files(url: str) -> None:
    Path(url, "b.safetensors").unlink()
    state, _ = load(url, ["a"])
    assert list(state) == ["a"]
    assert state_differences(state["a"], STATE["a"]) == []
    with pytest.raises(CheckpointError, match=r"b\.safetensors is missing"):
        load(url)


def test_checkpoint_in_memory_storage() -> None:
    save("memory://checkpoints/one", STATE, MANIFEST)
    assert state_differences(load("memory://checkpoints/one")[0], STATE) == []
    assert [one.rsplit("/", 1)[-1] for one in list_checkpoints("memory://checkpoints")] == ["one"]
    remove("memory://checkpoints/one")
    assert list_checkpoints("memory://checkpoints") == []


@pytest.mark.parametrize("name", ["a.state", "a.safetensors", "b.state", "b.safetensors", "manifest.json"])
def test_flipped_bit_is_detected(url: str, name: str) -> None:
    path = Path(url, name)
    original = path.read_bytes()
    for position in np.random.default_rng(4).integers(0, len(original), 40).tolist():
        damaged = bytearray(original)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"damaged|format"):
            load(url)
    path.write_bytes(original)
    load(url)


@pytest.mark.parametrize("name", ["a.state", "b.safetensors", "manifest.json"])
def test_truncated_file_is_detected(url: str, name: str) -> None:
    path = Path(url, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        load(url)


def test_folder_without_manifest_is_no_checkpoint(url: str) -> None:
    Path(url, "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="manifest is missing"):
        load(url)
    assert list_checkpoints(str(Path(url).parent)) == []


def test_other_format_is_rejected(url: str) -> None:
    path = Path(url, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(CheckpointError, match=f"format 99, this version reads {FORMAT}"):
        read_manifest(url)


def test_list_checkpoints_of_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert list_checkpoints(str(tmp_path / "nowhere")) == []


def rewrite_manifest(folder: Path, **fields: Any) -> None:
    """Change fields of a manifest and correct its checksum, as an attacker can."""
    manifest = {**json.loads((folder / "manifest.json").read_text()), **fields}
    del manifest["sha256"]
    checksum = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": checksum}))


def entry(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize(
    "name", ["../x", "../x.state", "/etc/x.state", "a/../../x.state", "x\\y.state", "..", "", "x", "x.state\n"]
)
def test_manifest_with_a_path_outside_its_folder_is_refused_and_nothing_outside_is_read(
    tmp_path: Path, name: str
) -> None:
    save(str(tmp_path / "one"), STATE, MANIFEST)
    data = (tmp_path / "one" / "a.state").read_bytes()
    (tmp_path / "x.state").write_bytes(data)
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "one" / "a.safetensors").read_bytes())
    files = read_manifest(str(tmp_path / "one"))["files"]
    files |= {name: entry(data), name.replace(".state", ".safetensors"): files["a.safetensors"]}
    rewrite_manifest(tmp_path / "one", files=files)
    read: list[str] = []
    url = faulty_url(tmp_path / "one")
    FaultyFileSystem.on_read = read.append
    with pytest.raises(CheckpointError, match="damaged"):
        load(url)
    assert read == [str(tmp_path / "one" / "manifest.json")]


@pytest.mark.parametrize(
    "files", [None, [], "a.state", {"a.state": 3}, {"a.state": {}, "a.safetensors": {}}, {"a.state": entry(b"")}]
)
def test_manifest_with_invalid_files_is_refused(url: str, files: Any) -> None:
    rewrite_manifest(Path(url), files=files)
    with pytest.raises(CheckpointError, match="damaged"):
        load(url)


@pytest.mark.parametrize("manifest", ["[]", "3", "null", "[" * 100_000])
def test_manifest_that_is_no_object_is_refused(url: str, manifest: str) -> None:
    Path(url, "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match="damaged"):
        load(url)


@pytest.mark.parametrize(("name", "data"), [("a.state", b"\xc1"), ("a.state", b"\x80"), ("a.safetensors", b"\xff" * 9)])
def test_state_that_cannot_be_decoded_is_refused(url: str, name: str, data: bytes) -> None:
    Path(url, name).write_bytes(data)
    rewrite_manifest(Path(url), files=read_manifest(url)["files"] | {name: entry(data)})
    with pytest.raises(CheckpointError, match="a cannot be decoded"):
        load(url)


def test_files_are_flushed_to_the_disk_before_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut keeps what was flushed, so the manifest must not exist before everything else is flushed."""
    folder = tmp_path / "new" / "checkpoints" / "one"
    flushed: list[tuple[str, bool]] = []  # path below tmp_path, and whether a manifest existed, even a partial one
    fsync = os.fsync

    def record(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(tmp_path)
        flushed.append((str(path).removesuffix(".part"), any(folder.glob("manifest.json*"))))

    monkeypatch.setattr(os, "fsync", record)
    save(str(folder), STATE, MANIFEST)
    before = [path for path, has_manifest in flushed if not has_manifest]
    after = [path for path, has_manifest in flushed if has_manifest]
    root = "new/checkpoints/one"
    assert {".", "new", "new/checkpoints"} <= set(before)  # the entries of the new folders
    files = {f"{root}/{part}.{kind}" for part in STATE for kind in ("state", "safetensors")}
    assert files <= set(before)
    assert before[-1] == root
    assert after == [f"{root}/manifest.json", root]
