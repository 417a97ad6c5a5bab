"""Builds the flow `learn` from the settings: loads the newest checkpoint, checks it and sets the start offset."""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer

from infra.errors import PremiereError, SettingsError
from infra.learner_settings import check_checkpoint_settings, learner_settings, log_settings, set_threads
from infra.run.flow import Flow
from infra.run.log_retention import start_retention_watch
from infra.settings import Settings
from infra.topics import EMBEDDED_LOGS, log_identity
from streaming import phase
from streaming import topics as t
from streaming.errors import StreamError
from streaming.kafka.client import consumer_config, earliest_offset, topic_name
from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.ownership import SOLE_PROCESS, Owner
from streaming.kafka.sink import KafkaSink
from streaming.kafka.source import KafkaSource, Message, read_all
from streaming.records import SettingsChange, Version

if TYPE_CHECKING:
    from streaming.state.checkpoints import CheckpointStore
    from streaming.state.log_learner import LogLearner
    from streaming.state.version_gate import VersionGate

log = logging.getLogger(__name__)

POLL_RECORDS: Final = 8  # with up to 100 events each; a poll is learned before SIGTERM is handled, so it must be short
IDLE_INTERVAL: Final = timedelta(milliseconds=500)  # without records, after which a finished checkpoint is announced


class LogTruncatedError(PremiereError):
    """Retention has deleted the start of the learner log, and there is no checkpoint that covers it."""


def learn(settings: Settings, stop: threading.Event, owner: Owner = SOLE_PROCESS) -> Flow:
    """Build the flow, and watch the retention of the log that it reads.

    It continues from the newest complete checkpoint, else from the start of the learner log. Raises SettingsError if
    the checkpoint has other model settings or all have another format, LogTruncatedError if records are missing.
    """
    from model.learner import Learner
    from model.warm_up import warm_up_learning
    from streaming.flows.learn import build
    from streaming.state.checkpoints import version_record
    from streaming.state.log_learner import LogLearner
    from streaming.state.model_versions import read_versions

    set_threads(settings.threads)
    log_id = log_identity(config := settings.kafka_config(), [t.ACTIVITY])
    checkpoints = _open_checkpoints(settings, log_id, owner)
    model = learner_settings(settings)
    found, first = _load_newest(checkpoints), first_offset(config)
    if found is None and first > 0:
        raise _log_truncated_error(settings, first)
    if found is not None:
        check_checkpoint_settings(found[1], model, found[2])
    with phase.compiling():
        warm_up_learning(model)
    learner, unannounced = LogLearner(Learner(model), log_settings(settings)), None
    if found is not None:
        state, manifest, url = found
        same_log = manifest["log"] == log_id
        learner.load_state_dict(state, same_log)
        _report_change(learner.settings_changes[-1], learner.position)
        report_signals(manifest.get("signals"))
        manifest |= {} if same_log else {"position": 0, "learned": 0, "skipped": [], "settings_changes": []}
        newest = version_record(url, manifest)
        unannounced = _unannounced(read_versions(config), newest, manifest["passed"], learner.gate, checkpoints)
        _skip_lost_records(learner, first, same_log)
    log.info("Learning with %s, after %d events.", "a new model" if found is None else found[2], learner.learned)
    commit_position = CommitPosition(start := {0: learner.position} if learner.position else None)
    source = KafkaSource(
        config, t.ACTIVITY, "learn", start=start or "earliest",
        idle=IDLE_INTERVAL, batch=POLL_RECORDS, position=commit_position, stop=stop,
    )  # fmt: skip
    dataflow = build(
        activity=source, versions=KafkaSink(config, stop=stop, owner=owner), learner=learner, checkpoints=checkpoints,
        commit_position=commit_position, reread=partial(_reread, config), unannounced=unannounced, stop=stop,
    )  # fmt: skip
    start_retention_watch(config, settings.checkpoints_url(), log_id, stop)
    return Flow(dataflow, [source])


def _report_change(change: SettingsChange, position: int) -> None:
    if 0 < change.position == position:
        values = ", ".join(f"{path} = {value}" for path, value in change.values.items())
        log.info("Settings changed from offset %d of %s on: %s.", position, t.ACTIVITY, values)


def report_signals(learned: Sequence[str] | None) -> None:
    """Report the signals that this release added or dropped: then only the ranker starts again."""
    from model.signals.table import SIGNALS

    if learned is not None and list(learned) != list(SIGNALS):
        added, dropped = [n for n in SIGNALS if n not in learned], [n for n in learned if n not in SIGNALS]
        log.info(
            "The signals of the ranker changed (added: %s; dropped: %s): it starts again, and all else is kept.",
            ", ".join(added) or "none", ", ".join(dropped) or "none",
        )  # fmt: skip


def _log_truncated_error(settings: Settings, first: int) -> LogTruncatedError:
    return LogTruncatedError(
        f"The topic {t.ACTIVITY} starts at offset {first}, and there is no checkpoint. Copy one to "
        f"{settings.checkpoints_url()} (from a checkpoint of another log only the weights are used), or delete the "
        "topic and run `premiere topics --create` to learn only from new events."
    )


def _unannounced(
    versions: Mapping[int, Version], newest: Version, passed: bool, gate: "VersionGate", checkpoints: "CheckpointStore"
) -> Version | None:
    """What an earlier process did not announce: its newest version, or a rollback that the gate demanded."""
    from streaming.state.model_versions import automatic_rollback

    if passed:
        return None if any(version.path == newest.path for version in versions.values()) else newest
    last = list(versions.values())[-1:]
    if not (gate.failures and last and last[0].cause == "learned" and last[0].step > gate.passed_step):
        return None
    last_good = checkpoints.find(gate.passed_step)
    return None if last_good is None else automatic_rollback(last_good)


def _reread(config: Mapping[str, str], start: int, stop: int) -> Iterator[Message]:
    """The messages of the learner log in the offsets [start, stop). Raises StreamError if some are deleted."""
    if first_offset(config) > start:
        raise StreamError(f"Retention has deleted the records of {t.ACTIVITY} from offset {start} on.")
    return takewhile(lambda message: message.offset < stop, read_all(config, t.ACTIVITY, {0: start}))


def first_offset(config: Mapping[str, str]) -> int:
    """The first offset of the learner log. Raises StreamError."""
    consumer = Consumer(consumer_config(config, "learn"))
    try:
        return earliest_offset(consumer, topic_name(config, t.ACTIVITY), 0)
    finally:
        consumer.close()


def _open_checkpoints(settings: Settings, log_id: str, owner: Owner) -> "CheckpointStore":
    from streaming.state.checkpoints import SHORT_RETENTION_HOURS, CheckpointStore

    retention_hours = (*SHORT_RETENTION_HOURS, settings.long_term_checkpoint_hours)
    url = settings.checkpoints_url()
    return CheckpointStore(url, settings.keep_checkpoints, log_id, retention_hours, EMBEDDED_LOGS, owner=owner)


def _load_newest(checkpoints: "CheckpointStore") -> tuple[dict[str, Any], dict[str, Any], str] | None:
    """The newest checkpoint. Raises SettingsError if all checkpoints have another format."""
    from model.checkpoint import CheckpointFormatError

    try:
        return checkpoints.load_newest()
    except CheckpointFormatError as error:
        raise SettingsError(str(error)) from error


def _skip_lost_records(learner: "LogLearner", first: int, same_log: bool) -> None:
    """Continue at the first offset of the learner log. Count and report the records that retention deleted before."""
    from streaming.flows.learner_metrics import LOST_RECORDS

    lost = learner.skip_to(first)
    if lost and same_log:
        LOST_RECORDS.inc(lost)
        log.warning(
            "%s starts at offset %d: retention deleted %d records before they were learned. The learner continues "
            "without them.", t.ACTIVITY, first, lost,
        )  # fmt: skip
