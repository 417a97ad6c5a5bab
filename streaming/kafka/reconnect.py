"""Detects broker outages and stale clients.

A stale client is a Kafka client that may never recover after a broker restart (librdkafka issue 5301). If the first
broker to come back does not know the other brokers yet, librdkafka removes all of them and never asks for metadata
again. The issue is open as of librdkafka 2.16. With one broker on a busy machine, 2 to 6 % of the clients became stale
at each restart (measured; version 2.11 with `metadata.recovery.strategy` "none" is affected too). A client that
recovered cannot be told from one that did not. Every client that lives for long is therefore held by a
`ReconnectingClient` and replaced after every outage.

A consumer can become stale without reporting any error, if the broker leaves its metadata before the connection ends
(measured on Apache Kafka 4.1 with one broker, 30 consumers and 11 orderly restarts: 9 of 330). It was still silent
after five minutes. A source therefore compares what it has read with the end of the log, as a new client sees it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Generic, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streaming.errors import StreamError
from streaming.kafka.client import cluster_metadata, consumer_config, discard, topic_name

STALE_CLIENT_S: Final = 10.0  # a client that is silent for this long, although the broker answers, counts as stale
END_PROBE_INTERVAL_S: Final = 20.0  # a client that misses records for two intervals counts as stale

log: Final = logging.getLogger(__name__)

Client = TypeVar("Client")


class Outage:
    """Tracks the outages that one client sees, and logs each start and end once."""

    def __init__(self, name: str, level: int = logging.WARNING) -> None:
        self.name, self.level = name, level  # of the client, and of the log records
        self.active = False
        self.since = 0.0  # monotonic seconds: when the outage began, or when a new client took over
        self.count = 0  # outages so far

    def begin(self, error: KafkaError) -> None:
        """The client reports a temporary error."""
        if not self.active:
            self.active, self.since, self.count = True, time.monotonic(), self.count + 1
            log.log(self.level, "%s: Kafka does not answer (%s); waiting for it.", self.name, error.str())

    def end(self) -> None:
        """The broker has answered."""
        if self.active:
            self.active = False
            log.log(self.level, "%s: Kafka answers again.", self.name)


class ReconnectingClient(Generic[Client]):
    """Holds a Kafka client, or an object with several, until it is replaced: after an outage it may be stale.

    `make` creates it with an error callback. Errors of a replaced client are ignored.
    """

    def __init__(self, make: Callable[[Callable[[KafkaError], None]], Client], outage: Outage | None = None) -> None:
        self._make, self.outage = make, outage or Outage("client", logging.DEBUG)
        self.count = 0  # clients created so far
        self.current = self._new()

    def _new(self) -> Client:
        self.count += 1
        number, self._outages_before = self.count, self.outage.count

        def on_error(error: KafkaError) -> None:
            if number == self.count:
                self.outage.begin(error)

        return self._make(on_error)

    @property
    def may_be_stale(self) -> bool:
        """Whether the client lived through an outage."""
        return self.outage.count > self._outages_before

    def replace(self) -> None:
        """Continue with a new client."""
        replaced = [self.current]
        self.current, self.outage.since = self._new(), time.monotonic()
        discard(replaced)

    def discard(self) -> None:
        """End the use of the client; it may hang."""
        discarded = [self.current]
        del self.current
        discard(discarded)


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


class LogEnds(NamedTuple):
    """The end offset of each partition of a topic, as a new client saw them."""

    asked_at: float  # monotonic seconds
    offsets: Mapping[int, int]  # by partition


class LogEndProbe:
    """Asks with a new client, in a background thread, where the partitions of a topic end."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self.config, self.topic = config, topic
        self.last = self.previous = LogEnds(float("-inf"), {})
        self._asked_at = float("-inf")  # monotonic seconds

    def start(self, now: float) -> None:
        """Start a probe, unless the last one began less than `END_PROBE_INTERVAL_S` ago. It updates the answers."""
        if now - self._asked_at >= END_PROBE_INTERVAL_S:
            self._asked_at = now
            threading.Thread(target=self._run, args=(now,), daemon=True, name="log end probe").start()

    def _run(self, now: float) -> None:
        clients = [Consumer(consumer_config(self.config, "premiere-log-end", self.topic))]
        name = topic_name(self.config, self.topic)
        try:
            topic = clients[0].list_topics(timeout=STALE_CLIENT_S).topics.get(name)
            partitions = [TopicPartition(name, number) for number in (topic.partitions if topic else ())]
            ends = {at.partition: clients[0].get_watermark_offsets(at, STALE_CLIENT_S)[1] for at in partitions}
        except KafkaException:
            return  # the broker is not available
        finally:
            discard(clients)
        self.previous, self.last = self.last, LogEnds(now, ends)
