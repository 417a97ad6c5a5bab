"""The flow `learn` over messages in memory, with checkpoints in a folder."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from bytewax.testing import TestingSource, run_main
from prometheus_client import REGISTRY

from streaming.flows.learn import build
from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.source import Message
from streaming.records import Version, decode_version
from streaming.state.checkpoints import CheckpointStore
from streaming.state.log_learner import LogLearner
from streaming.state.log_settings import LogSettings
from streaming.topics import MODEL_VERSIONS
from tests.support.features import CollectSink, polls

LOG_SETTINGS: Final = LogSettings(
    min_batch_events=8, linger_ms=500, max_batch_records=6, checkpoint_ms=3_000, checkpoint_batches=7, dedup_window=64
)


def run_learn(
    messages: Sequence[Message],
    folder: Path | str,
    learner: LogLearner,
    unannounced: Version | None = None,
    keep: int = 50,
    whole_log: Sequence[Message] = (),
    reread: Callable[[int, int], Iterable[Message]] | None = None,
) -> tuple[list[Version], int | None]:
    """Run the flow over the messages of the log. Returns the announced versions and the commit position."""
    versions, position = CollectSink(), CommitPosition()
    source = TestingSource(polls(messages, 7))
    checkpoints = CheckpointStore(str(folder), keep=keep, log_identity="log")
    run_main(
        build(
            activity=source, versions=versions, learner=learner, checkpoints=checkpoints,
            commit_position=position, unannounced=unannounced, report_interval_s=0.0,
            reread=reread or (lambda start, stop: [m for m in whole_log or messages if start <= m.offset < stop]),
        )
    )  # fmt: skip
    checkpoints.take_finished(wait=True)
    assert all(record.topic == MODEL_VERSIONS for record in versions.all())
    return [decode_version(record.value) for record in versions.all()], position.get(0)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0
