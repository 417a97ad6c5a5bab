"""Flow `learn`: it announces complete checkpoints in order, and a restart announces those that it had not."""

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest
import torch
from bytewax.testing import TestingSource, run_main
from prometheus_client import REGISTRY

from model import checkpoint
from model.learner import Learner
from streaming.flows.learn import build
from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.source import Message
from streaming.records import Tick, Version, decode_version
from streaming.state.checkpoints import CheckpointStore, version_record
from streaming.state.log_learner import LogLearner, LogSettings
from streaming.topics import MODEL_VERSIONS
from tests.support.checkpoint_storage import FaultyFileSystem, faulty_url
from tests.support.features import CollectSink, polls
from tests.support.learner import SETTINGS, LogBuilder, state_differences

torch.set_num_threads(1)
LOG_SETTINGS: Final = LogSettings(
    min_batch_events=8, linger_ms=500, max_batch_records=6, checkpoint_ms=3_000, checkpoint_batches=7, dedup_window=64
)


def flow(
    messages: Sequence[Message],
    folder: Path | str,
    learner: LogLearner,
    unannounced: Version | None = None,
    keep: int = 50,
) -> tuple[list[Version], int | None]:
    """Run the flow over the messages. Returns the announced versions and the commit position."""
    versions, position = CollectSink(), CommitPosition()
    source = TestingSource(polls(messages, 7))
    checkpoints = CheckpointStore(str(folder), keep=keep, log_identity="log")
    run_main(
        build(
            activity=source, versions=versions, learner=learner, checkpoints=checkpoints,
            commit_position=position, unannounced=unannounced, report_interval_s=0.0,
        )
    )  # fmt: skip
    checkpoints.take_finished(wait=True)
    assert all(record.topic == MODEL_VERSIONS for record in versions.all())
    return [decode_version(record.value) for record in versions.all()], position.get(0)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_complete_checkpoints_are_announced_once_and_in_order(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(30)
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    announced, position = flow(log.messages, tmp_path, learner)
    assert len(announced) > 2
    assert len({version.path for version in announced}) == len(announced)
    assert [version.step for version in announced] == sorted(version.step for version in announced)
    for version in announced:
        state, manifest = checkpoint.load(version.path)
        assert (manifest["position"], manifest["step"], manifest["log"]) == (version.position, version.step, "log")
        assert state["log"]["counts"][:2] == [version.position, version.learned]
        assert manifest["settings"] == json.loads(json.dumps(asdict(SETTINGS)))
    assert position == announced[-1].position  # of a complete checkpoint


def totals() -> dict[str, float]:
    return {
        "learned": value("premiere_learned_events_total"),
        "duplicates": value("premiere_learner_duplicates_total"),
        "scored": value("premiere_prequential_scored_total", slice="all"),
        "mrr": value("premiere_prequential_sum_total", variant="full", metric="mrr", slice="all"),
    }


def test_counters_include_the_totals_of_the_restored_checkpoint(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(30)
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    for end in (60, len(log.messages)):  # the second process starts from the checkpoint of the first
        before = totals()
        flow(log.messages[learner.position : end], tmp_path, learner)
        increases = {name: total - before[name] for name, total in totals().items()}
        ranking = learner.rankings["full"]
        assert increases["mrr"] == pytest.approx(ranking.sums()[0, 0])
        assert (increases["learned"], increases["duplicates"]) == (learner.learned, learner.duplicates)
        assert increases["scored"] == ranking.scored()["all"] > 0
        found = CheckpointStore(str(tmp_path)).load_newest()
        assert found is not None
        learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
        learner.load_state_dict(found[0])


def test_model_counts_are_exported_as_metrics(tmp_path: Path) -> None:
    log = LogBuilder(seed=1).add_rounds(30)
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    learner.learner.pipelines["full"].ranker.skipped_steps = 3
    names = ("unknown_title_events_total", "waiting_title_events_total", "title_evictions_total", "skipped_steps_total")
    labels: list[dict[str, str]] = [{}, {}, {}, {"part": "ranker"}]
    before = [value(f"premiere_learner_{name}", **label) for name, label in zip(names, labels, strict=True)]
    flow(log.messages, tmp_path, learner)
    after = [value(f"premiere_learner_{name}", **label) for name, label in zip(names, labels, strict=True)]
    stream_state = learner.learner.stream_state
    counts = [learner.unknown_title_events, stream_state.waiting_title_events, stream_state.evicted_titles, 3]
    assert [b - a for a, b in zip(before, after, strict=True)] == counts
    assert stream_state.waiting_title_events > 0 < stream_state.evicted_titles
    assert value("premiere_learner_waiting_titles") == len(stream_state.admission)


def test_restart_from_a_checkpoint_equals_an_undisturbed_run(tmp_path: Path) -> None:
    log = LogBuilder(seed=2).add_rounds(24)
    undisturbed, before, after = (LogLearner(Learner(SETTINGS), LOG_SETTINGS) for _ in range(3))
    flow(log.messages, tmp_path / "a", undisturbed)
    flow(log.messages[:60], tmp_path / "b", before)
    found = CheckpointStore(str(tmp_path / "b")).load_newest()
    assert found is not None
    state, manifest, url = found
    after.load_state_dict(state)
    announced, _ = flow(
        log.messages[after.position :], tmp_path / "b", after, unannounced=version_record(url, manifest)
    )
    assert announced[0] == version_record(url, manifest)
    assert announced[0].position < announced[1].position
    assert state_differences(after.state_dict(), undisturbed.state_dict()) == []


def test_damaged_checkpoint_is_replaced_by_the_one_before(tmp_path: Path) -> None:
    log = LogBuilder(seed=6).add_rounds(24)
    undisturbed, first, after = (LogLearner(Learner(SETTINGS), LOG_SETTINGS) for _ in range(3))
    flow(log.messages, tmp_path / "a", undisturbed)
    announced, _ = flow(log.messages[:90], tmp_path / "b", first)
    with Path(announced[-1].path, "training.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    found = CheckpointStore(str(tmp_path / "b")).load_newest()
    assert found is not None
    assert found[2] == announced[-2].path
    after.load_state_dict(found[0])
    relearned, _ = flow(log.messages[after.position :], tmp_path / "b", after)
    assert relearned[-1].position > announced[-1].position
    assert state_differences(after.state_dict(), undisturbed.state_dict()) == []


def test_full_disk_does_not_stop_the_learner(tmp_path: Path) -> None:
    log = LogBuilder(seed=2).add_rounds(24)
    undisturbed, learner = (LogLearner(Learner(SETTINGS), LOG_SETTINGS) for _ in range(2))
    expected, _ = flow(log.messages, tmp_path / "a", undisturbed)
    faulty, failed = faulty_url(tmp_path / "b"), value("premiere_checkpoint_failures_total")

    def full_at_first(path: str) -> None:
        if f"/{expected[1].step:012d}/" in path or f"/{expected[0].step:012d}/" in path:
            raise OSError(errno.ENOSPC, "No space left on device")

    FaultyFileSystem.on_write = full_at_first
    announced, position = flow(log.messages, faulty, learner)
    assert value("premiere_checkpoint_failures_total") == failed + 2
    assert [version.step for version in announced] == [version.step for version in expected[2:]]
    assert position == announced[-1].position
    assert state_differences(learner.state_dict(), undisturbed.state_dict()) == []


def test_log_without_events_announces_no_version(tmp_path: Path) -> None:
    log = LogBuilder()
    for _ in range(9):
        log.launch()
        log.write(Tick(ts=0), later=4_000)
    learner = LogLearner(Learner(SETTINGS), LOG_SETTINGS)
    assert flow(log.messages, tmp_path, learner) == ([], None)
    assert learner.position == len(log.messages)
