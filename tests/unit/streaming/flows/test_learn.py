"""Flow `learn`: it announces complete checkpoints in order, and a restart announces those that it had not."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.learner import Learner
from streaming.records import Tick
from streaming.state.checkpoints import CheckpointStore, version_record
from streaming.state.log_learner import LogLearner
from streaming.state.settings_history import all_values
from tests.support.checkpoint_storage import FaultyFileSystem, faulty_url
from tests.support.learn_in_memory import LOG_SETTINGS, metric, run_learn
from tests.support.learner import SETTINGS, LogBuilder, state_differences

torch.set_num_threads(1)


def test_complete_checkpoints_are_announced_once_and_in_order(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(30)
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    announced, position = run_learn(log.messages, tmp_path, learner)
    assert len(announced) > 2
    assert len({version.path for version in announced}) == len(announced)
    assert [version.step for version in announced] == sorted(version.step for version in announced)
    for version in announced:
        state, manifest = checkpoint.load(version.path)
        assert (manifest["position"], manifest["step"], manifest["log"]) == (version.position, version.step, "log")
        assert state["log"]["counts"][:2] == [version.position, version.learned]
        assert manifest["settings"] == all_values(SETTINGS, LOG_SETTINGS)
        assert [change["position"] for change in manifest["settings_changes"]] == [0]
    assert position == announced[-1].position  # of a complete checkpoint


def test_restart_from_a_checkpoint_equals_an_undisturbed_run(tmp_path: Path) -> None:
    log = LogBuilder(seed=2).add_rounds(24)
    undisturbed, before, after = (LogLearner(Learner(SETTINGS), LOG_SETTINGS) for _ in range(3))
    run_learn(log.messages, tmp_path / "a", undisturbed)
    run_learn(log.messages[:60], tmp_path / "b", before)
    found = CheckpointStore(str(tmp_path / "b")).load_newest()
    assert found is not None
    state, manifest, url = found
    after.load_state_dict(state)
    announced, _ = run_learn(
        log.messages[after.position :], tmp_path / "b", after, unannounced=version_record(url, manifest)
    )
    assert announced[0] == version_record(url, manifest)
    assert announced[0].position < announced[1].position
    assert state_differences(after.state_dict(), undisturbed.state_dict()) == []


def test_damaged_checkpoint_is_replaced_by_the_one_before(tmp_path: Path) -> None:
    log = LogBuilder(seed=6).add_rounds(24)
    undisturbed, first, after = (LogLearner(Learner(SETTINGS), LOG_SETTINGS) for _ in range(3))
    run_learn(log.messages, tmp_path / "a", undisturbed)
    run_learn(log.messages[:90], tmp_path / "b", first)
    *_, before, newest = checkpoint.list_checkpoints(str(tmp_path / "b"))
    with Path(newest, "training.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    found = CheckpointStore(str(tmp_path / "b")).load_newest()
    assert found is not None
    assert found[2] == before
    after.load_state_dict(found[0])
    relearned, _ = run_learn(log.messages[after.position :], tmp_path / "b", after)
    assert relearned[-1].position > checkpoint.read_manifest(before)["position"]
    assert state_differences(after.state_dict(), undisturbed.state_dict()) == []


def test_full_disk_does_not_stop_the_learner(tmp_path: Path) -> None:
    log = LogBuilder(seed=2).add_rounds(24)
    undisturbed, learner = (LogLearner(Learner(SETTINGS), LOG_SETTINGS) for _ in range(2))
    expected, _ = run_learn(log.messages, tmp_path / "a", undisturbed)
    faulty, failed = faulty_url(tmp_path / "b"), metric("premiere_checkpoint_failures_total")

    def full_at_first(path: str) -> None:
        if f"/{expected[1].step:012d}/" in path or f"/{expected[0].step:012d}/" in path:
            raise OSError(errno.ENOSPC, "No space left on device")

    FaultyFileSystem.on_write = full_at_first
    announced, position = run_learn(log.messages, faulty, learner)
    assert metric("premiere_checkpoint_failures_total") == failed + 2
    steps, wanted = ([version.step for version in versions] for versions in (announced, expected[2:]))
    both = min(len(steps), len(wanted))  # a run that ends may not have announced its last version
    assert both > 0
    assert steps[:both] == wanted[:both]
    assert position == announced[-1].position
    assert state_differences(learner.state_dict(), undisturbed.state_dict()) == []


@pytest.mark.parametrize("linger_ms", [0, 3_600_000])
def test_small_micro_batch_that_takes_longer_than_its_linger_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, linger_ms: int
) -> None:
    settings = replace(LOG_SETTINGS, linger_ms=linger_ms)
    run_learn(LogBuilder(seed=2).add_rounds(8).messages, tmp_path, LogLearner(Learner(SETTINGS), settings))
    warnings = [record.getMessage() for record in caplog.records if "learner.linger_ms (0.0 s)" in record.getMessage()]
    assert len(warnings) == (linger_ms == 0)


def test_log_without_events_announces_no_version(tmp_path: Path) -> None:
    log = LogBuilder()
    for _ in range(9):
        log.launch()
        log.write(Tick(ts=0), later=4_000)
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    assert run_learn(log.messages, tmp_path, learner) == ([], None)
    assert learner.position == len(log.messages)
