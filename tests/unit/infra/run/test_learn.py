"""The flow `learn` starts from the newest checkpoint, and refuses one with other model settings."""

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import SettingsError
from infra.learner_settings import learner_settings
from infra.run.learn import check_checkpoint_settings, first_offset, learn, log_settings
from infra.settings import Settings
from infra.topics import create_topics
from model.checkpoint import FORMAT
from model.learner import Learner, LearnerSettings
from streaming.records import Tick
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner
from streaming.topics import ACTIVITY, topics
from tests.support.checkpoint_storage import change_format, write
from tests.support.kafka import StartBroker
from tests.support.learn_flow import announced_versions, produce, run_until_announced
from tests.support.learner import LogBuilder
from tests.support.streams import group_offset

torch.set_num_threads(1)


@pytest.fixture
def settings(start_broker: StartBroker, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a broker that no other test uses, because the topics have their real names."""
    with start_broker(tmp_path / "kafka") as address:
        create_topics({"bootstrap.servers": address}, topics())
        yield Settings(bootstrap_servers=address, data_dir=tmp_path, checkpoint_seconds=2, threads=1)


def test_unannounced_checkpoint_is_announced_after_a_restart(settings: Settings) -> None:
    log = LogBuilder(seed=3, d_text=256).add_rounds(40)
    log.write(Tick(ts=0), later=3_000)
    produce(settings, log.messages[:120])
    run_until_announced(settings, 1)
    first = announced_versions(settings)
    assert first
    found = CheckpointStore(settings.checkpoints_url()).load_newest()
    assert found is not None
    state, manifest, _ = found
    assert group_offset(settings.kafka_config(), "learn", ACTIVITY) in {version.position for version in first}

    learner = LogLearner(Learner(learner_settings(settings)), log_settings(settings))
    learner.load_state_dict(state)
    for message in log.messages[learner.position :]:  # a crash between writing and announcing
        if learner.feed(message) and learner.position > found[1]["position"] + 10:
            break
    checkpoints = CheckpointStore(settings.checkpoints_url(), log_identity=manifest["log"])
    checkpoints.write(
        learner.state_dict(),
        {
            "step": learner.learner.micro_batches,
            "position": learner.position,
            "learned": learner.learned,
            "mrr": None,
            "passed": True,
        },
    )
    written = checkpoints.take_finished(wait=True)
    assert written is not None

    produce(settings, log.messages[120:])
    run_until_announced(settings, len(first) + 2)
    later = announced_versions(settings)[len(first) :]
    assert later[0].path == written.path
    assert later[0].position == written.position < later[1].position
    assert len({version.path for version in announced_versions(settings)}) == len(announced_versions(settings))


def test_empty_log_starts_at_offset_zero(settings: Settings) -> None:
    assert first_offset(settings.kafka_config()) == 0


def test_checkpoint_interval_is_in_milliseconds() -> None:
    assert log_settings(Settings(checkpoint_seconds=2.5)).checkpoint_ms == 2_500
    assert [log_settings(Settings(version_gate=on)).gate.enabled for on in (True, False)] == [True, False]


def test_checkpoint_with_other_settings_is_refused_by_name() -> None:
    written, current = LearnerSettings(), replace(LearnerSettings(), shortlist=7, repeats=True)
    manifest = {"settings": json.loads(json.dumps(asdict(written)))}
    check_checkpoint_settings(manifest, written, "file:///checkpoints/3")
    with pytest.raises(SettingsError, match=r"file:///checkpoints/3 .*\(repeats, shortlist\)"):
        check_checkpoint_settings(manifest, current, "file:///checkpoints/3")


def test_checkpoint_without_a_setting_counts_as_made_with_its_default() -> None:
    stored: dict[str, Any] = json.loads(json.dumps(asdict(LearnerSettings())))
    del stored["sequence"]["optim"]["matrix_optimizer"], stored["sequence"]["objective"]["logq"]
    check_checkpoint_settings({"settings": stored}, LearnerSettings(), "here")
    check_checkpoint_settings({}, LearnerSettings(), "here")
    stored["seed"] = 7
    with pytest.raises(SettingsError, match="seed"):
        check_checkpoint_settings({"settings": stored}, LearnerSettings(), "here")


def test_learner_refuses_to_start_on_checkpoints_of_another_format_only(settings: Settings) -> None:
    folder = Path(settings.checkpoints_url())
    for step in (1, 2):
        write(CheckpointStore(str(folder), log_identity="log"), step)
        change_format(folder / f"{step:012d}", FORMAT + 1)
    with pytest.raises(SettingsError, match="PREMIERE_CHECKPOINTS"):
        learn(settings, threading.Event())
    assert len(list(folder.glob("*/part.state"))) == 2
