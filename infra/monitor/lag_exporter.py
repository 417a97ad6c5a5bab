"""Each flow tells Prometheus the lag of its own group, as `premiere status` shows it: one way of measuring it.

A thread reads it every few seconds. A broker that is away is no crash of the flow's: the gauges keep what was read last
and say when that was, and the flow itself says that it waits.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import Gauge

from infra.errors import TopicError
from infra.monitor.lag import READS, Lag, Lags

log: Final = logging.getLogger(__name__)

EVERY: Final = 5.0  # seconds between two readings
_WHERE: Final = ["group", "topic", "partition"]
MESSAGES: Final = Gauge("premiere_group_lag_messages", "messages after the group's committed offset", _WHERE)
SECONDS: Final = Gauge(
    "premiere_group_lag_seconds",
    "from the first record that waits for the group to the log's last, by record times",
    _WHERE,
)
READ: Final = Gauge("premiere_group_lag_read_timestamp_seconds", "when the lag was read last, unix time", ["group"])


def start(config: Mapping[str, str], group: str, stop: threading.Event, every: float = EVERY) -> threading.Thread:
    """Keep the gauges of a flow's group current until `stop` is set, or the process ends."""
    thread = threading.Thread(target=_keep, args=(config, {group: READS[group]}, stop, every), daemon=True, name="lag")
    thread.start()
    return thread


def _keep(config: Mapping[str, str], groups: Mapping[str, Sequence[str]], stop: threading.Event, every: float) -> None:
    told = False
    with Lags(config) as lags:
        while not stop.is_set():
            try:
                show(lags.read(groups))
                told = False
            except TopicError as error:
                if not told:
                    log.warning("The lag is not known: %s", error)
                told = True
            stop.wait(every)


def show(rows: Sequence[Lag]) -> None:
    """Set the gauges; seconds that are not known are no number."""
    for row in rows:
        where = row.group, row.topic, str(row.partition)
        MESSAGES.labels(*where).set(row.lag)
        SECONDS.labels(*where).set(float("nan") if row.seconds is None else row.seconds)
    for group in {row.group for row in rows}:
        READ.labels(group).set(time.time())
