"""Measures how much of the learner log's retention the kept checkpoints need.

A checkpoint is of full use only while the learner log holds all records from its position on: without them the learner
can neither return to it nor `premiere verify` start from it. So the age of the first record that the oldest kept
checkpoint needs must stay below the retention of `activity`. The alert `LogRetention` tells when it comes close.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource
from prometheus_client import Gauge

from model import checkpoint
from streaming.kafka.client import admin_config, topic_name
from streaming.kafka.source import read_all
from streaming.topics import ACTIVITY, topics

INTERVAL_S: Final = 300.0
ADMIN_TIMEOUT_S: Final = 15.0
RETENTION: Final = "retention.ms"
RETENTION_USED: Final = Gauge(
    "premiere_log_retention_used_ratio",
    "Age of the first record that the oldest kept checkpoint needs, relative to the retention of the learner log.",
)

log: Final = logging.getLogger(__name__)


def start_retention_watch(
    config: Mapping[str, str], checkpoints_url: str, log_id: str, stop: threading.Event, interval_s: float = INTERVAL_S
) -> None:
    """Update the metric in a thread until `stop` is set."""
    arguments = config, checkpoints_url, log_id, stop, interval_s
    threading.Thread(target=_watch, args=arguments, name="log retention", daemon=True).start()


def _watch(
    config: Mapping[str, str], checkpoints_url: str, log_id: str, stop: threading.Event, interval_s: float
) -> None:
    while not stop.is_set():
        try:
            RETENTION_USED.set(retention_used(config, checkpoints_url, log_id, round(time.time() * 1000)))
        except Exception as error:  # of Kafka or of a storage with error classes of its own: the metric keeps its value
            log.warning("The retention of %s that the checkpoints need is unknown: %s", ACTIVITY, error)
        stop.wait(interval_s)


def retention_used(config: Mapping[str, str], checkpoints_url: str, log_id: str, now: int) -> float:
    """The share at `now` (ms); 1 or more if records are deleted, 0 without a checkpoint or with unlimited retention.

    Raises StreamError.
    """
    positions, retention = _positions(checkpoints_url, log_id), retention_ms(config)
    if not positions or retention <= 0:
        return 0.0
    first = next(read_all(config, ACTIVITY), None)
    if first is None:
        return 0.0
    needed = next(read_all(config, ACTIVITY, {0: max(min(positions), first.offset)}), None)
    age = 0 if needed is None else now - needed.appended
    return max(age / retention, float(min(positions) < first.offset))


def _positions(checkpoints_url: str, log_id: str) -> list[int]:
    """The log positions of the readable checkpoints of this log."""
    positions = []
    for url in checkpoint.list_checkpoints(checkpoints_url):
        try:
            manifest = checkpoint.read_manifest(url)
        except checkpoint.CheckpointError:
            continue
        if manifest["log"] == log_id:
            positions.append(int(manifest["position"]))
    return positions


def retention_ms(config: Mapping[str, str]) -> int:
    """The retention of the learner log; -1 if it is unlimited. The default if the broker does not tell."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic_name(config, ACTIVITY))
    admin = AdminClient(admin_config(config))
    answer = admin.describe_configs([resource], request_timeout=ADMIN_TIMEOUT_S)[resource]
    try:
        entry = answer.result().get(RETENTION)
    except KafkaException as error:
        log.debug("Kafka does not tell the settings of %s: %s", ACTIVITY, error.args[0].str())
        entry = None
    default = next(topic.config[RETENTION] for topic in topics() if topic.name == ACTIVITY)
    return int(default if entry is None or entry.value is None else entry.value)
