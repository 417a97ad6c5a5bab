"""The learner at a change of the text encoder, which is a record of its log."""

from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from model import checkpoint
from model.learner import Learner
from model.recommender import Recommender
from streaming.kafka.source import Message
from streaming.records import TextSpace
from streaming.state.log_learner import LogLearner, restarted
from streaming.state.recompute import recompute
from streaming.state.settings_history import settings_at
from streaming.state.title_metadata import OTHER_TEXT
from tests.support.learn_in_memory import LOG_SETTINGS, run_learn
from tests.support.learner import D_TEXT, SETTINGS, LogBuilder, state_differences

torch.set_num_threads(1)


def new() -> LogLearner:
    return LogLearner(Learner(SETTINGS), LOG_SETTINGS)


def log_with_change(seed: int, width: int = 5) -> list[Message]:
    """A log whose encoder changes in the middle."""
    log = LogBuilder(seed=seed)
    log.write(TextSpace(encoder="first", width=D_TEXT))
    log.add_rounds(25).add_events(2)
    log.write(TextSpace(encoder="second", width=width))
    log.stream.d_text = width
    return log.add_rounds(25).messages


def test_first_record_of_the_present_width_changes_nothing() -> None:
    plain, named = LogBuilder(seed=3), LogBuilder(seed=3)
    named.write(TextSpace(encoder="first", width=D_TEXT), later=0)
    learners = new(), new()
    for learner, log in zip(learners, (plain, named), strict=True):
        for message in log.add_rounds(10).messages:
            learner.feed(message)
    served = [learner.state_dict()["served"] for learner in learners]
    assert state_differences(*served) == []
    assert learners[1].learner.stream_state.text_space == ("first", D_TEXT)


def test_change_of_the_encoder_closes_the_micro_batch_and_restarts_the_text() -> None:
    learner = new()
    for message in log_with_change(seed=1):
        known, waiting = learner.learner.stream_state.text_space, learner.position < message.offset
        learner.feed(message)
        if learner.learner.stream_state.text_space != known and known.encoder == "first":
            assert waiting
            assert learner.position == message.offset + 1
            assert not learner.learner.stream_state.catalog.semantic_VE.any()
            assert learner.gate.last_good is None
    assert learner.learner.stream_state.text_space == ("second", 5)
    assert learner.learner.stream_state.catalog.semantic_VE.any()


def test_every_position_resumes_to_the_same_bits_across_the_change() -> None:
    messages = log_with_change(seed=4)
    straight, saved = new(), list[dict[str, object]]()
    for message in messages:
        straight.feed(message)
        if message.offset % 17 == 0:
            saved.append(straight.state_dict())
    for state in saved:
        resumed = restarted(state, SETTINGS, LOG_SETTINGS)
        for message in messages[resumed.position :]:
            resumed.feed(message)
        assert state_differences(resumed.state_dict(), straight.state_dict()) == []


def test_version_is_recomputed_across_the_change(tmp_path: Path) -> None:
    messages = log_with_change(seed=2)
    announced, _ = run_learn(messages, tmp_path, new())
    change = next(m.offset for m in messages[1:] if b"text-space" in (m.value or b""))
    start, newest = [version for version in announced if version.position < change][-1], announced[-1]
    assert newest.position > change
    state, manifest = checkpoint.load(newest.path)
    assert (manifest["settings"]["memory.d_text"], manifest["settings"]["backbone.d_text"]) == (5, 5)
    learner = restarted(checkpoint.load(start.path)[0], *settings_at(newest.settings, start.position))
    last = deque(recompute(learner, messages[start.position :], newest), maxlen=1).pop()
    url = str(tmp_path / "recomputed")
    checkpoint.save(url, last.state_dict(), {})
    assert state_differences(checkpoint.load(url)[0], state) == []


def test_version_is_served_with_the_width_of_its_checkpoint(tmp_path: Path) -> None:
    announced, _ = run_learn(log_with_change(seed=2), tmp_path, new())
    spaces = [Recommender.load(version.path).text_space for version in announced]
    assert (spaces[0], spaces[-1]) == (("first", D_TEXT), ("second", 5))


def test_return_to_a_version_from_before_the_change_takes_its_width() -> None:
    learner, state = new(), new().state_dict()
    for message in log_with_change(seed=1):
        learner.feed(message)
        if message.offset == 40:
            state = learner.state_dict()
    learner.checked_at = 0
    learner.return_to(state)
    assert learner.learner.stream_state.text_space == ("first", D_TEXT)


def test_title_of_another_space_is_learned_without_text_and_counted() -> None:
    log, before = LogBuilder(seed=3, d_text=7), OTHER_TEXT._value.get()
    log.write(TextSpace(encoder="first", width=D_TEXT))
    learner = new()
    for message in log.add_rounds(6).messages:
        learner.feed(message)
    catalog = learner.learner.stream_state.catalog
    assert OTHER_TEXT._value.get() > before
    assert catalog.candidate_V.any()
    assert not catalog.semantic_VE.any()


def test_settings_of_the_text_are_no_change_of_settings() -> None:
    learner = new()
    for message in log_with_change(seed=1):
        learner.feed(message)
    resumed = restarted(learner.state_dict(), SETTINGS, replace(LOG_SETTINGS, linger_ms=300))
    assert [sorted(change.values) for change in resumed.settings_changes[1:]] == [["learner.linger_ms"]]
    assert np.isfinite(learner.learner.stream_state.catalog.semantic_VE).all()
