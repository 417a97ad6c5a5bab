"""The gate in the flow `learn`: what it announces, how the learner returns, and that a crash changes none of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from bytewax.errors import BytewaxRuntimeError

from model import checkpoint
from model.learner import Learner
from model.metrics.drift import DriftSettings
from streaming.kafka.source import Message
from streaming.records import Version
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import GateSettings
from tests.support.learn_in_memory import LOG_SETTINGS, metric, run_learn
from tests.support.learner import SETTINGS, LogBuilder, state_differences

torch.set_num_threads(1)
# An alarm at every fall, which soon counts as the norm: so a short log has several returns.
NERVOUS: Final = GateSettings(
    failures=2,
    accept_ms=3_000,
    drift=DriftSettings(block=4, warmup_blocks=3, half_life=8, allowance=0.3, threshold=1.0, cap=1.5),
)


class CrashError(Exception):
    """The process dies here."""


def new(gate: GateSettings = NERVOUS) -> LogLearner:
    return LogLearner(Learner(SETTINGS), replace(LOG_SETTINGS, checkpoint_batches=2, gate=gate))


def restart(messages: Sequence[Message], folder: Path, **options: object) -> tuple[LogLearner, list[Version]]:
    """A new process: it continues from the newest checkpoint."""
    learner = new()
    if (found := CheckpointStore(str(folder), log_identity="log").load_newest()) is not None:
        learner.load_state_dict(found[0])
    rest = messages[learner.position :]
    versions, _ = run_learn(rest, folder, learner, whole_log=messages, **options)  # type: ignore[arg-type]
    return learner, versions


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[LogBuilder, LogLearner, list[Version]]:
    """A log on which the gate demands returns, and the run over it."""
    log, returns = LogBuilder(seed=5).add_rounds(40), metric("premiere_gate_returns_total")
    learner, versions = restart(log.messages, tmp_path_factory.mktemp("undisturbed"))
    assert metric("premiere_gate_returns_total") >= returns + 2
    return log, learner, versions


def test_skipped_ranges_are_in_the_versions_and_manifests(
    undisturbed: tuple[LogBuilder, LogLearner, list[Version]],
) -> None:
    _, learner, versions = undisturbed
    assert learner.skipped
    assert versions[-1].skipped == learner.skipped
    assert all(one.start < one.end for one in learner.skipped)
    assert len({one.start for one in learner.skipped}) == len(learner.skipped)  # a longer range replaces a shorter one


def test_steps_of_checkpoints_never_decrease(undisturbed: tuple[LogBuilder, LogLearner, list[Version]]) -> None:
    learned = [version.step for version in undisturbed[2] if version.cause == "learned"]
    assert learned == sorted(set(learned))


@pytest.mark.parametrize("crash_every", [13, 29, 61])
def test_crash_at_any_record_leads_to_the_same_state(
    undisturbed: tuple[LogBuilder, LogLearner, list[Version]], crash_every: int, tmp_path: Path
) -> None:
    log, expected, versions = undisturbed
    learner, announced = new(), []
    for end in [*range(crash_every, len(log.messages), crash_every), len(log.messages)]:
        learner, some = restart(log.messages[:end], tmp_path)
        announced += some
    assert state_differences(learner.state_dict(), expected.state_dict()) == []
    steps = {version.step for version in announced if version.cause == "learned"}
    assert steps <= {version.step for version in versions}


def test_crash_during_a_return_leads_to_the_same_state(
    undisturbed: tuple[LogBuilder, LogLearner, list[Version]], tmp_path: Path
) -> None:
    log, expected, _ = undisturbed
    crashes = 0

    def reread(start: int, stop: int) -> Iterator[Message]:
        nonlocal crashes
        crashes += 1
        for message in log.messages[start:stop]:
            if message.offset == (start + stop) // 2 and crashes % 2:
                raise CrashError
            yield message

    learner = None
    while learner is None:
        try:
            learner, _ = restart(log.messages, tmp_path, reread=reread)
        except BytewaxRuntimeError:
            continue
    assert crashes > 3
    assert state_differences(learner.state_dict(), expected.state_dict()) == []


def test_reading_the_log_with_the_ranges_known_gives_the_same_bits(
    undisturbed: tuple[LogBuilder, LogLearner, list[Version]],
) -> None:
    log, expected, versions = undisturbed
    version, learner = versions[-1], new()
    learner.skip(version.skipped)
    for message in log.messages:
        if learner.feed(message) and learner.position >= version.position:
            break
    assert (learner.position, learner.batches) == (version.position, version.step)
    for message in log.messages[learner.next_offset :]:
        learner.feed(message)
    assert state_differences(learner.state_dict(), expected.state_dict()) == []


def test_state_that_is_not_finite_is_saved_but_not_announced(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(30)
    learner = new(GateSettings(failures=100))
    announced, _ = run_learn(log.messages[:60], tmp_path, learner)
    assert announced
    learner.learner.served_pipeline.ranker.mean_F[0] = np.nan
    failures = metric("premiere_gate_failures_total")
    later, position = run_learn(log.messages[learner.next_offset : 130], tmp_path, learner, whole_log=log.messages)
    assert metric("premiere_gate_failures_total") > failures
    assert later == []
    assert position is not None
    assert position > announced[-1].position


def test_learner_returns_to_the_trusted_checkpoint_and_announces_again(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(60)
    learner = new(GateSettings(failures=2))
    run_learn(log.messages[:60], tmp_path, learner)
    last_good = learner.gate.last_good
    assert last_good is not None
    learner.learner.served_pipeline.ranker.mean_F[0] = np.nan
    later, _ = run_learn(log.messages[learner.next_offset :], tmp_path, learner, keep=2, whole_log=log.messages)
    assert len(learner.skipped) == 1
    assert learner.skipped[0].start == last_good.position
    assert later[-1].position > learner.skipped[0].end
    assert learner.learner.served_pipeline.is_finite()
    state, manifest = checkpoint.load(later[-1].path)
    assert manifest["passed"]
    assert len(state["log"]["skipped"]) == len(manifest["skipped"]) == 1


def test_skipped_events_are_counted_but_never_targets(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(60)
    trained, learner = new(GateSettings(enabled=False)), new(GateSettings(failures=2))
    run_learn(log.messages, tmp_path / "a", trained)
    run_learn(log.messages[:60], tmp_path / "b", learner)
    learner.learner.served_pipeline.ranker.mean_F[0] = np.nan
    run_learn(log.messages[learner.next_offset :], tmp_path / "b", learner, whole_log=log.messages)
    assert learner.learned == trained.learned
    counted, expected = learner.learner.stream_state, trained.learner.stream_state
    assert (counted.events, counted.waiting_title_events) == (expected.events, expected.waiting_title_events)
    assert counted.catalog.ids == expected.catalog.ids
    assert (counted.catalog.count_V == expected.catalog.count_V).all()
    assert learner.learner.micro_batches < trained.learner.micro_batches
    assert len(learner.learner.untrained) > 0


def test_fall_in_service_is_rolled_back_until_a_version_passes(tmp_path: Path) -> None:
    log = LogBuilder(seed=6).add_rounds(40)
    learner = new(replace(NERVOUS, drift=replace(NERVOUS.drift, threshold=3.0, cap=4.0)))
    announced, _ = run_learn(log.messages, tmp_path, learner)
    causes = [version.cause for version in announced]
    at = causes.index("rollback")
    assert announced[at].automatic
    assert announced[at].step < announced[at - 1].step
    assert announced[at].path in {version.path for version in announced[:at]}
    assert "learned" in causes[at + 1 :]


def test_return_without_a_checkpoint_continues(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(40)
    learner = new(GateSettings(failures=2))
    run_learn(log.messages[:60], tmp_path / "a", learner)
    learner.learner.served_pipeline.ranker.mean_F[0] = np.nan
    later, _ = run_learn(log.messages[learner.next_offset :], tmp_path / "b", learner, whole_log=log.messages)
    assert later == []
    assert learner.skipped == []
    assert learner.position > len(log.messages) - 20
