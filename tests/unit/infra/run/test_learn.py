"""The flow `learn` starts from the newest checkpoint, and refuses one with other model settings."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from infra.errors import SettingsError
from infra.learner_settings import learner_settings, log_settings
from infra.run.learn import check_checkpoint_settings, first_offset, learn
from infra.settings import Settings
from infra.topics import create_topics
from model.checkpoint import FORMAT
from model.learner import Learner
from streaming.records import Tick
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import LogSettings
from streaming.state.settings_history import all_values
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


def test_checkpoint_of_another_shape_is_refused_by_the_name_of_the_setting() -> None:
    written, other = learner_settings(Settings()), learner_settings(Settings(model_history=50, horizons=(0, 5)))
    saved = {"settings": all_values(written, LogSettings())}
    check_checkpoint_settings(saved, written, "file:///checkpoints/3")
    with pytest.raises(SettingsError, match=r"file:///checkpoints/3 .* horizons, model_history,"):
        check_checkpoint_settings(saved, other, "file:///checkpoints/3")
    live = learner_settings(Settings(max_titles=7, filter_seen=False, optimizer={"lr": 0.1}))
    check_checkpoint_settings(saved, live, "file:///checkpoints/3")


def test_learner_refuses_to_start_on_checkpoints_of_another_format_only(settings: Settings) -> None:
    folder = Path(settings.checkpoints_url())
    for step in (1, 2):
        write(CheckpointStore(str(folder), log_identity="log"), step)
        change_format(folder / f"{step:012d}", FORMAT + 1)
    with pytest.raises(SettingsError, match="PREMIERE_CHECKPOINTS"):
        learn(settings, threading.Event())
    assert len(list(folder.glob("*/part.state"))) == 2
