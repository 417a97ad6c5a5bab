"""The flow `learn` starts from the newest checkpoint, and refuses one with other model settings."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from infra.errors import SettingsError
from infra.experiments import compare
from infra.experiments.verdicts import BETTER
from infra.learner_settings import learner_settings, log_settings
from infra.operate.verify import verify
from infra.run.learn import first_offset, learn, report_signals
from infra.settings import Settings, load
from infra.topics import create_topics
from model.checkpoint import FORMAT
from model.learner import Learner
from model.signals.table import SIGNALS
from streaming.records import Tick
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner
from streaming.topics import ACTIVITY, topics
from tests.support.checkpoint_storage import change_format, write
from tests.support.evaluation import SILENT, checkerboard, no_text
from tests.support.kafka import StartBroker
from tests.support.learn_flow import announced_versions, produce, run_until_announced
from tests.support.learner import SETTINGS, LogBuilder
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


def test_learn_starts_with_the_better_of_two_compared_settings(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better, worse = "learner.shortlist=350,optimizer.lr=0.003", "max_titles=4,min_users_before_launch=1"
    found = compare.report(checkerboard(320), no_text, SETTINGS, (worse, better), SILENT)
    assert found["verdict"] == BETTER
    *_, lines = compare.lines(found)
    monkeypatch.chdir(tmp_path)
    Path("premiere.toml").write_text(lines)
    changed = load(bootstrap_servers=settings.bootstrap_servers, data_dir=tmp_path, checkpoint_seconds=2)
    log = LogBuilder(seed=3, d_text=256).add_rounds(30)
    produce(changed, log.messages)
    run_until_announced(changed, 1)
    newest = CheckpointStore(changed.checkpoints_url()).load_newest()
    assert newest is not None
    assert newest[1]["settings_changes"][0]["values"] == {
        "learner.shortlist": 350, "optimizer.lr": 0.003, "learner.checkpoint_ms": 2_000,
    }  # fmt: skip


def test_change_of_a_live_setting_takes_effect_at_the_offset_of_the_checkpoint(settings: Settings) -> None:
    log = LogBuilder(seed=3, d_text=256).add_rounds(40)
    produce(settings, log.messages[:120])
    run_until_announced(settings, 1)
    count = len(announced_versions(settings))
    changed = settings.model_copy(update={"max_titles": 1_000, "filter_seen": False})
    produce(changed, log.messages[120:])
    run_until_announced(changed, count + 1)
    last = announced_versions(changed)[-1]
    assert [change.values for change in last.settings[1:]] == [{"memory.max_titles": 1_000, "learner.repeats": True}]
    assert 0 < last.settings[1].position < last.position
    output: list[str] = []
    verify(changed, len(announced_versions(changed)) - 1, None, None, output.append)
    assert "bit-identical" in output[0]


def test_learner_refuses_to_start_on_checkpoints_of_another_format_only(settings: Settings) -> None:
    folder = Path(settings.checkpoints_url())
    for step in (1, 2):
        write(CheckpointStore(str(folder), log_identity="log"), step)
        change_format(folder / f"{step:012d}", FORMAT + 1)
    with pytest.raises(SettingsError, match="PREMIERE_CHECKPOINTS"):
        learn(settings, threading.Event())
    assert len(list(folder.glob("*/part.state"))) == 2


def test_changed_signals_are_reported_by_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        report_signals([*SIGNALS[1:], "former signal"])
    (line,) = caplog.messages
    assert SIGNALS[0] in line
    assert "former signal" in line
    caplog.clear()
    report_signals(list(SIGNALS))
    report_signals(None)
    assert not caplog.messages
