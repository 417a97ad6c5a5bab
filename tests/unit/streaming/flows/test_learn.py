"""The flow `learn`: versions are announced once they are whole, in order, and a restart announces what it had not."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from bytewax.testing import TestingSource, run_main
from prometheus_client import REGISTRY

from infra.run.learn import learner_settings
from infra.settings import Settings
from model import checkpoint
from model.learner import Learner
from streaming.flows.learn import build
from streaming.kafka.source import Message
from streaming.records import Tick, Version, decode_version
from streaming.state.checkpoints import Checkpoints, version
from streaming.state.log_learner import LogLearner, LogSettings
from streaming.topics import ACTIVITY, MODEL_VERSIONS
from tests.support.features import Collect, polls
from tests.support.learn_flow import announced, produce, run_until
from tests.support.learner import SETTINGS, Log, differences
from tests.support.streams import group_offset

torch.set_num_threads(1)
# Apache Kafka cuts off what is older than a topic keeps and refuses what lies far ahead: logs are two days old there.
LOGS: Final = LogSettings(batch=8, linger=500, titles=6, checkpoint=3_000, checkpoint_batches=7, window=64)


def flow(
    messages: Sequence[Message], folder: Path, learner: LogLearner, unannounced: Version | None = None, keep: int = 50
) -> tuple[list[Version], dict[int, int]]:
    """Run the flow over the messages: what it announced, and the position that others may see."""
    versions, durable = Collect(), dict[int, int]()
    source = TestingSource(polls(messages, 7))
    checkpoints = Checkpoints(str(folder), keep=keep, identity="log")
    run_main(
        build(
            activity=source, versions=versions, learner=learner, checkpoints=checkpoints, durable=durable,
            unannounced=unannounced, every=0.0,
        )
    )  # fmt: skip
    checkpoints.finished(wait=True)
    assert all(record.topic == MODEL_VERSIONS for record in versions.all())
    return [decode_version(record.value) for record in versions.all()], durable


def test_versions_are_announced_in_order_each_once_and_only_when_they_can_be_read(tmp_path: Path) -> None:
    log = Log(seed=1).play(30)
    learner = LogLearner(Learner(SETTINGS), LOGS)
    announced, durable = flow(log.messages, tmp_path, learner)
    assert len(announced) > 2
    assert len({one.path for one in announced}) == len(announced)
    assert [one.step for one in announced] == sorted(one.step for one in announced)
    for one in announced:
        state, manifest = checkpoint.load(one.path)
        assert (manifest["position"], manifest["step"], manifest["log"]) == (one.position, one.step, "log")
        assert state["log"]["counts"][:2] == [one.position, one.learned]
        assert manifest["settings"] == json.loads(json.dumps(asdict(SETTINGS)))
    assert durable == {0: announced[-1].position}  # nothing that is not whole
    assert REGISTRY.get_sample_value("premiere_learned_events") == learner.learned
    assert REGISTRY.get_sample_value("premiere_learner_duplicates") == learner.duplicates
    scored = learner.rankings["full"].scored()["all"]
    assert REGISTRY.get_sample_value("premiere_prequential_scored", {"slice": "all"}) == scored


def test_a_restart_from_what_was_announced_ends_where_a_run_without_one_does(tmp_path: Path) -> None:
    log = Log(seed=2).play(24)
    straight, before, after = (LogLearner(Learner(SETTINGS), LOGS) for _ in range(3))
    flow(log.messages, tmp_path / "a", straight)
    flow(log.messages[:60], tmp_path / "b", before)
    found = Checkpoints(str(tmp_path / "b")).newest()
    assert found is not None
    state, manifest, url = found
    after.load_state_dict(state)
    announced, _ = flow(log.messages[after.position :], tmp_path / "b", after, unannounced=version(url, manifest))
    assert announced[0] == version(url, manifest)
    assert announced[0].position < announced[1].position
    assert differences(after.state_dict(), straight.state_dict()) == []


def test_a_damaged_newest_checkpoint_gives_way_to_its_parent_and_what_it_held_is_learned_again_bit_for_bit(
    tmp_path: Path,
) -> None:
    log = Log(seed=6).play(24)
    straight, first, after = (LogLearner(Learner(SETTINGS), LOGS) for _ in range(3))
    flow(log.messages, tmp_path / "a", straight)
    announced, _ = flow(log.messages[:90], tmp_path / "b", first)
    with Path(announced[-1].path, "training.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    found = Checkpoints(str(tmp_path / "b")).newest()
    assert found is not None
    assert found[2] == announced[-2].path
    after.load_state_dict(found[0])
    again, _ = flow(log.messages[after.position :], tmp_path / "b", after)
    assert again[-1].position > announced[-1].position
    assert differences(after.state_dict(), straight.state_dict()) == []


def test_a_log_without_events_makes_no_version(tmp_path: Path) -> None:
    log = Log()
    for _ in range(9):
        log.launch()
        log.write(Tick(ts=0), later=4_000)
    learner = LogLearner(Learner(SETTINGS), LOGS)
    assert flow(log.messages, tmp_path, learner) == ([], {})
    assert learner.position == len(log.messages)


def test_on_a_real_broker_a_checkpoint_that_was_never_announced_is_announced_first(settings: Settings) -> None:
    log = Log(seed=3, d_text=256).play(40)
    log.write(Tick(ts=0), later=3_000)
    produce(settings, log.messages[:120])
    run_until(settings, 1)
    first = announced(settings)
    assert first
    found = Checkpoints(settings.checkpoints_url()).newest()
    assert found is not None
    state, manifest, _ = found
    assert group_offset(settings.kafka(), "learn", ACTIVITY) in {one.position for one in first}

    learner = LogLearner(Learner(learner_settings(settings)), LogSettings(checkpoint=10**9, checkpoint_batches=10**9))
    learner.load_state_dict(state)
    for message in log.messages[learner.position : 150]:  # a crash between writing and announcing
        learner.feed(message)
    checkpoints = Checkpoints(settings.checkpoints_url(), identity=manifest["log"])
    checkpoints.write(
        learner.state_dict(),
        {"step": learner.learner.steps, "position": learner.position, "learned": learner.learned, "mrr": None},
    )
    written = checkpoints.finished(wait=True)
    assert written is not None

    produce(settings, log.messages[120:])
    run_until(settings, len(first) + 2)
    later = announced(settings)[len(first) :]
    assert later[0].path == written.path
    assert later[0].position == written.position < later[1].position
    assert len({one.path for one in announced(settings)}) == len(announced(settings))
