"""Prometheus metrics that every flow has: its read offsets, and how long its epochs and snapshots take."""

import time
from typing import Final

from prometheus_client import Gauge, Histogram

from streaming import phase

_BUCKETS: Final = tuple(0.001 * 2**i for i in range(17))  # seconds: 1 ms to 65 s
READ_OFFSET: Final = Gauge("premiere_read_offset", "Next offset that the flow reads.", ["topic", "partition"])
EPOCH_SECONDS: Final = Histogram(
    "premiere_epoch_seconds", "Time between two snapshots of a partition's offset.", ["topic"], buckets=_BUCKETS
)
SNAPSHOT_SECONDS: Final = Histogram(
    "premiere_snapshot_seconds", "Time that a sink takes to make an epoch's writes durable.", ["sink"], buckets=_BUCKETS
)


class PartitionMetrics:
    """The metrics of one partition's reader."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.read_offset, self._epochs = READ_OFFSET.labels(topic, str(partition)), EPOCH_SECONDS.labels(topic)
        self.read_offset.set(offset)
        self._partition = topic, partition
        phase.reads(topic, partition, offset)
        self._epoch_started_at = time.monotonic()

    def reach_end(self) -> None:
        """The partition is read to its present end."""
        phase.reached_end(*self._partition)

    def end_epoch(self) -> None:
        """Record the duration of the epoch that ends now."""
        now = time.monotonic()
        self._epochs.observe(now - self._epoch_started_at)
        self._epoch_started_at = now
