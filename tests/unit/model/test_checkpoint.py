"""Checkpoints: what comes back is what was saved to the last bit, and what is not whole says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem

from model import checkpoint
from model.checkpoint import FORMAT, CheckpointError, load, present, read_manifest, remove, save
from streaming.state.checkpoints import Checkpoints, version
from tests.support.learner import differences

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


def test_everything_comes_back_to_the_last_bit(url: str) -> None:
    state, manifest = load(url)
    assert differences(state, STATE) == []
    assert {key: manifest[key] for key in MANIFEST} == MANIFEST
    assert state["b"]["scalar"].shape == ()
    assert isinstance(state["b"]["tensors"][0], torch.Tensor)
    assert isinstance(state["b"]["arrays"][1], np.ndarray)


def test_what_comes_back_can_be_written_to(url: str) -> None:
    state, _ = load(url)
    state["b"]["arrays"][0][0] = 1
    state["b"]["tensors"][0][0, 0] = 1


def test_parts_can_be_read_alone_and_only_what_is_read_must_be_whole(url: str) -> None:
    Path(url, "b.safetensors").unlink()
    state, _ = load(url, ["a"])
    assert list(state) == ["a"]
    assert differences(state["a"], STATE["a"]) == []
    with pytest.raises(CheckpointError, match=r"torn: b\.safetensors is missing"):
        load(url)


def test_other_storages_than_a_folder_serve_too() -> None:
    save("memory://checkpoints/one", STATE, MANIFEST)
    assert differences(load("memory://checkpoints/one")[0], STATE) == []
    assert [one.rsplit("/", 1)[-1] for one in present("memory://checkpoints")] == ["one"]
    remove("memory://checkpoints/one")
    assert present("memory://checkpoints") == []


@pytest.mark.parametrize("name", ["a.state", "a.safetensors", "b.state", "b.safetensors", "manifest.json"])
def test_no_flipped_bit_goes_unnoticed(url: str, name: str) -> None:
    path = Path(url, name)
    whole = path.read_bytes()
    for place in np.random.default_rng(4).integers(0, len(whole), 40).tolist():
        bad = bytearray(whole)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match=r"damaged|format"):
            load(url)
    path.write_bytes(whole)
    load(url)


@pytest.mark.parametrize("name", ["a.state", "b.safetensors", "manifest.json"])
def test_a_torn_file_is_damage(url: str, name: str) -> None:
    path = Path(url, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"The checkpoint at {url} is damaged"):
        load(url)


def test_without_its_manifest_it_does_not_exist(url: str) -> None:
    Path(url, "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=f"There is no checkpoint at {url}: its manifest is missing"):
        load(url)
    assert present(str(Path(url).parent)) == []


def test_another_format_says_what_to_do(url: str) -> None:
    path = Path(url, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(CheckpointError, match=f"has format 99, this version reads {FORMAT}: use"):
        read_manifest(url)


def test_nothing_is_present_where_nothing_was_written(tmp_path: Path) -> None:
    assert present(str(tmp_path / "nowhere")) == []


def write(checkpoints: Checkpoints, step: int, mark: float = 0.0) -> None:
    state = {"part": {"step": step, "array": np.full(4, mark)}}
    checkpoints.write(state, {"step": step, "position": step * 10, "learned": step, "mrr": None})
    announced = checkpoints.finished(wait=True)
    assert announced is not None
    assert (announced.step, announced.position, announced.mrr) == (step, step * 10, None)


def steps(checkpoints: Checkpoints) -> list[int]:
    return [int(url.rsplit("/", 1)[-1]) for url in present(checkpoints.url)]


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(f"{tmp_path}/", keep=3, identity="log-1")
    assert checkpoints.newest() is None
    for step in (5, 9, 10, 100, 1000):
        write(checkpoints, step)
    assert steps(checkpoints) == [10, 100, 1000]
    found = checkpoints.newest()
    assert found is not None
    state, manifest, url = found
    assert (state["part"]["step"], manifest["log"], manifest["position"]) == (1000, "log-1", 10_000)
    assert version(url, manifest).path == f"{tmp_path}/000000001000"


def test_a_damaged_one_is_passed_over_for_its_parent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    for step in (1, 2, 3, 4):
        write(checkpoints, step)
    (tmp_path / "000000000004" / "part.state").unlink()
    with (tmp_path / "000000000003" / "part.safetensors").open("r+b") as file:
        file.write(b"\xff")
    shutil.copytree(tmp_path / "000000000002", tmp_path / "000000000005")
    (tmp_path / "000000000005" / "manifest.json").unlink()
    found = checkpoints.newest()
    assert found is not None
    assert found[0]["part"]["step"] == 2
    assert [record.message.count("The one before it is used") for record in caplog.records] == [1, 1]


@pytest.mark.parametrize("keep", [1, 3])
def test_what_was_passed_over_never_pushes_out_what_was_just_written(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=keep)
    for step in (700, 800, 900):
        write(checkpoints, step)
    for step in (1, 2, 3, 4):  # those were of another format, or damaged: the learner began anew
        write(checkpoints, step)
        assert step in steps(checkpoints)
        assert len(steps(checkpoints)) <= keep
    assert steps(checkpoints) == [2, 3, 4][-keep:]


def test_a_pinned_one_stays_until_it_is_unpinned(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    write(checkpoints, 1)
    checkpoint.pin(present(str(tmp_path))[0])
    for step in (2, 3, 4):
        write(checkpoints, step)
    assert steps(checkpoints) == [1, 3, 4]
    found = checkpoints.newest()
    assert found is not None
    assert found[1]["step"] == 4
    checkpoint.unpin(present(str(tmp_path))[0])
    write(checkpoints, 5)
    assert steps(checkpoints) == [4, 5]


class Racing(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A folder that somebody else changes at the moment when a checkpoint is removed from it."""

    protocol = "racing"
    cachable = False
    meanwhile: Callable[[], None] = lambda: None

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        Racing.meanwhile()
        super().rm(path, recursive, maxdepth)


def test_what_is_pinned_while_rotation_is_at_work_stays(tmp_path: Path) -> None:
    fsspec.register_implementation("racing", Racing, clobber=True)
    Racing.meanwhile = lambda: None
    write(Checkpoints(str(tmp_path), keep=9), 1)
    write(Checkpoints(str(tmp_path), keep=9), 2)
    second = str(tmp_path / "000000000002")
    Racing.meanwhile = lambda: checkpoint.pin(second)  # as the first one goes
    checkpoints = Checkpoints(f"racing://{tmp_path}", keep=1)
    write(checkpoints, 3)
    assert steps(checkpoints) == [2, 3]
    assert checkpoint.load(second)[1]["step"] == 2


def test_a_folder_that_cannot_be_removed_at_this_moment_goes_later_and_the_learner_lives(tmp_path: Path) -> None:
    fsspec.register_implementation("racing", Racing, clobber=True)

    def busy() -> None:
        raise OSError("Directory not empty")

    Racing.meanwhile = busy
    checkpoints = Checkpoints(f"racing://{tmp_path}", keep=1)
    write(checkpoints, 1)
    write(checkpoints, 2)
    assert steps(checkpoints) == [2]  # without its manifest it is none
    assert len(list(tmp_path.iterdir())) == 2
    Racing.meanwhile = lambda: None
    write(checkpoints, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000003"]


def test_the_anchor_is_always_between_one_and_two_spans_old_once_there_was_time_for_one(tmp_path: Path) -> None:
    now = 1_700_000_000.0
    checkpoints = Checkpoints(str(tmp_path), keep=2, identity="log", anchor=2.0, clock=lambda: now)
    ages: list[list[float]] = []
    for step in range(60):
        write(checkpoints, step)
        ages.append([(now - (1_700_000_000.0 + 600 * old)) / 3600 for old in steps(checkpoints)])
        now += 600.0
    assert all(len(age) <= 4 for age in ages)
    assert all(any(2.0 <= one <= 4.0 + 0.5 for one in age) for age in ages[14:])
    assert all(max(age) <= 4.5 for age in ages)
    anchor = {max(age) for age in ages[14:]}
    assert len(anchor) > 5  # it grows old and is moved on


def test_a_checkpoint_of_another_log_is_no_anchor(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=2, identity="old", anchor=24.0)
    for step in (1, 2, 3):
        write(checkpoints, step)
    assert steps(checkpoints) == [1, 2, 3]
    checkpoints = Checkpoints(str(tmp_path), keep=2, identity="new", anchor=24.0)
    for step in (4, 5, 6, 7):
        write(checkpoints, step)
    assert steps(checkpoints) == [4, 6, 7]


def test_what_a_crash_left_half_written_is_cleared_away_and_nothing_else(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), keep=3)
    for name in ("000000000002", "000000000004", "000000000009", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.state.part").write_bytes(b"half")
    checkpoint.pin(str(tmp_path / "000000000004"))  # somebody is deriving it again
    write(checkpoints, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000004", "000000000005", "000000000009", "notes"]


def test_a_checkpoint_written_again_is_whole(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    write(checkpoints, 7, mark=1.0)
    write(checkpoints, 7, mark=2.0)
    found = checkpoints.newest()
    assert found is not None
    assert found[0]["part"]["array"].tolist() == [2.0] * 4


def test_one_is_written_at_a_time_and_handed_over_once(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    assert checkpoints.finished() is None
    state = {"part": {"array": np.zeros(100)}}
    manifest = {"step": 1, "position": 2, "learned": 3, "mrr": 0.5}
    checkpoints.write(state, manifest)
    with pytest.raises(AssertionError, match="finished"):
        checkpoints.write(state, manifest)
    first = checkpoints.finished(wait=True)
    assert first is not None
    assert first.path == present(str(tmp_path))[0]
    assert checkpoints.finished(wait=True) is None


def test_what_goes_wrong_in_writing_is_raised(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    checkpoints = Checkpoints(str(tmp_path / "blocked"))
    checkpoints.write({"part": {}}, {"step": 1, "position": 2, "learned": 3, "mrr": 0.5})
    with pytest.raises(OSError, match="blocked"):
        checkpoints.finished(wait=True)
