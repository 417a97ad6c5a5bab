"""Recomputes a model version from the learner log, with the settings that were in force at each offset."""

from collections.abc import Iterable, Iterator

from streaming.kafka.source import Message
from streaming.records import SettingsChange, Version
from streaming.state.log_learner import LogLearner, restarted
from streaming.state.settings_history import settings_at


def recompute(learner: LogLearner, messages: Iterable[Message], version: Version) -> Iterator[LogLearner]:
    """Learn from the messages, which begin at `learner.position`, until the state of the version is reached.

    Yields the learner after each message; the last one has the version's state, unless the messages end before. The
    state of a version includes the check at which it was written.
    """
    changes = [change for change in version.settings if change.position > learner.position]
    for message in messages:
        if changes and _is_restart(learner, changes[0]):  # after the record before
            learner = _changed(learner, version, changes.pop(0))
        is_due = learner.feed(message)
        if changes and _is_restart(learner, changes[0]):  # this record closed the last micro-batch before the change
            learner = _changed(learner, version, changes.pop(0))
            if message.offset >= learner.position:  # it is not in that micro-batch itself
                is_due = learner.feed(message)
        yield learner
        if is_due and learner.position >= version.position:
            return


def _is_restart(learner: LogLearner, change: SettingsChange) -> bool:
    """Whether the state is the one that the learner was restarted from with other settings."""
    return (learner.position, learner.checked_at) == (change.position, change.checked_at)


def _changed(learner: LogLearner, version: Version, change: SettingsChange) -> LogLearner:
    """The learner with the settings from this change on. It keeps the ranges that are read without training."""
    changed = restarted(learner.state_dict(), *settings_at(version.settings, change.position))
    changed.skip(learner.skipped)
    return changed
