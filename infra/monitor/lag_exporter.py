"""Exports the consumer lag of a flow's own group to Prometheus.

A thread reads the lag every few seconds in the same way as `premiere status`. If the broker is unreachable, the flow
goes on: the gauges keep the last values, and a third gauge holds the time of the last successful read.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import Gauge

from infra.errors import TopicError
from infra.monitor.lag import FLOW_TOPICS, LagReader, PartitionLag

log: Final = logging.getLogger(__name__)

READ_INTERVAL_S: Final = 5.0
_LABELS: Final = ["group", "topic", "partition"]
LAG_RECORDS: Final = Gauge("premiere_consumer_lag_records", "Records after the group's committed offset.", _LABELS)
LAG_SECONDS: Final = Gauge(
    "premiere_consumer_lag_seconds",
    "Time from the first uncommitted record to the last record of the partition, by record times.",
    _LABELS,
)
LAG_READ_TIME: Final = Gauge(
    "premiere_consumer_lag_read_timestamp_seconds", "Unix time of the last successful read of the lag.", ["group"]
)


def start_lag_exporter(
    config: Mapping[str, str], group: str, stop: threading.Event, interval_s: float = READ_INTERVAL_S
) -> threading.Thread:
    """Start a thread that updates the gauges of a flow's group until `stop` is set or the process ends."""
    groups = {group: FLOW_TOPICS[group]}
    thread = threading.Thread(target=_export, args=(config, groups, stop, interval_s), daemon=True, name="consumer lag")
    thread.start()
    return thread


def _export(
    config: Mapping[str, str], groups: Mapping[str, Sequence[str]], stop: threading.Event, interval_s: float
) -> None:
    warned = False
    with LagReader(config) as reader:
        while not stop.is_set():
            try:
                set_gauges(reader.read(groups))
                warned = False
            except TopicError as error:
                if not warned:
                    log.warning("Cannot read the consumer lag: %s", error)
                warned = True
            stop.wait(interval_s)


def set_gauges(rows: Sequence[PartitionLag]) -> None:
    """Set the gauges; an unknown lag in seconds becomes NaN."""
    for row in rows:
        labels = row.group, row.topic, str(row.partition)
        LAG_RECORDS.labels(*labels).set(row.records)
        LAG_SECONDS.labels(*labels).set(float("nan") if row.seconds is None else row.seconds)
    for group in {row.group for row in rows}:
        LAG_READ_TIME.labels(group).set(time.time())
