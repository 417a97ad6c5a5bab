"""Detects broker outages and stale clients.

A stale client is a Kafka client that may never recover after a broker restart (librdkafka issue 5301). If the first
broker to come back does not know the other brokers yet, librdkafka removes all of them and never asks for metadata
again. The issue is open as of librdkafka 2.16. With one broker on a busy machine, 2 to 6 % of the clients became stale
at each restart (measured; version 2.11 with `metadata.recovery.strategy` "none" is affected too). A client that
recovered cannot be told from one that did not. Sources and sinks therefore replace a client after every outage.
"""

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError

from streaming.errors import StreamError
from streaming.kafka.client import cluster_metadata

STALE_CLIENT_S: Final = 10.0  # a client that is silent for this long, although the broker answers, counts as stale

log: Final = logging.getLogger(__name__)


class Outage:
    """Tracks the outages that one client sees, and logs each start and end once."""

    def __init__(self, name: str) -> None:
        self.name = name  # of the client, for the log
        self.active = False
        self.since = 0.0  # monotonic seconds: when the outage began, or when a new client took over
        self.count = 0  # outages so far

    def begin(self, error: KafkaError) -> None:
        """The client reports a temporary error."""
        if not self.active:
            self.active, self.since, self.count = True, time.monotonic(), self.count + 1
            log.warning("%s: Kafka does not answer (%s); waiting for it.", self.name, error.str())

    def end(self) -> None:
        """The broker has answered."""
        if self.active:
            self.active = False
            log.warning("%s: Kafka answers again.", self.name)


class BrokerProbe:
    """Asks with a new client, in a background thread, whether the broker is available.

    If a new client reaches the broker and the old one does not, the old one is stale.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.answered_at = float("-inf")  # monotonic seconds of the broker's last answer
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start a probe unless one is running. It updates `answered_at` if the broker answers."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, daemon=True, name="broker-probe")
            self._thread.start()

    def _run(self) -> None:
        with suppress(StreamError):
            if cluster_metadata(self.config, STALE_CLIENT_S).brokers:
                self.answered_at = time.monotonic()
