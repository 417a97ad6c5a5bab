"""How far a flow has read, and how long the steps of its commit take: what Prometheus is told of every flow alike."""

import time
from typing import Final

from prometheus_client import Gauge, Histogram

_BUCKETS: Final = tuple(0.001 * 2**i for i in range(17))  # seconds: 1 ms to 65 s
READ: Final = Gauge("premiere_read_offset", "next offset that the flow reads", ["topic", "partition"])
EPOCH: Final = Histogram(
    "premiere_epoch_seconds", "from one snapshot of a partition's position to the next", ["topic"], buckets=_BUCKETS
)
SNAPSHOT: Final = Histogram(
    "premiere_snapshot_seconds", "that a sink took to make an epoch's writes safe", ["sink"], buckets=_BUCKETS
)


class Reader:
    """What one partition's reader tells."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.read, self._epochs = READ.labels(topic, str(partition)), EPOCH.labels(topic)
        self.read.set(offset)
        self._began = time.monotonic()

    def epoch(self) -> None:
        """An epoch has ended."""
        now = time.monotonic()
        self._epochs.observe(now - self._began)
        self._began = now
