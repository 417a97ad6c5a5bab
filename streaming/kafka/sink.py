"""Writes records from a dataflow into Kafka, and ends an epoch only after the broker has acknowledged its records.

The engine completes an epoch after `snapshot()` has returned, so nothing counts as done that the broker does not have.
The sink waits while a broker is unavailable. It gives up soon if the flow is asked to stop meanwhile, or if its client
is stale. Nothing is lost then: the epoch is not complete, and the next start writes it again.
"""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Producer

from streaming.commit_metrics import SNAPSHOT_SECONDS
from streaming.errors import DeliveryError
from streaming.kafka import client, reconnect
from streaming.kafka.ownership import SOLE_PROCESS, Owner

STOP_GRACE_S: Final = 3.0  # how long a flow that is asked to stop waits for a broker that accepts nothing
_FLUSH_INTERVAL_S: Final = 0.2  # between two checks of `stop`
_STALE_CHECK_TIMEOUT_S: Final = 2.0  # for the broker's answer to a client that may be stale
_REWRITE: Final = "No data is lost: the next start writes this epoch again."


class Outgoing(NamedTuple):
    """A record to write. Without a partition, the key determines it."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int = -1


class KafkaSink(FixedPartitionedSink[list[Outgoing], None]):
    """Writes records to the topics that they name. Items are (key, records).

    Order holds within a key. The keys are distributed over `shards` producers. Once `stop` is set, the sink waits at
    most `STOP_GRACE_S` for a broker that accepts nothing.
    """

    def __init__(
        self,
        config: Mapping[str, str],
        shards: int = 1,
        stop: threading.Event | None = None,
        owner: Owner = SOLE_PROCESS,
    ) -> None:
        self.config, self.shards, self.stop, self.owner = config, shards, stop or threading.Event(), owner

    def list_parts(self) -> list[str]:
        """The names of the shards."""
        return [f"{shard:03d}" for shard in range(self.shards)]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Shard":
        """Create a producer."""
        return _Shard(self.config, self.stop, self.owner)


class _Shard(StatefulSinkPartition[list[Outgoing], None]):
    """One producer. It sends while the flow continues; `snapshot` waits for the last delivery."""

    def __init__(self, config: Mapping[str, str], stop: threading.Event, owner: Owner) -> None:
        self.owner = owner
        self.kafka_config, self.config, self.stop = config, client.producer_config(config), stop
        self.outage, self.broker_probe = reconnect.Outage("Kafka sink"), reconnect.BrokerProbe(config)
        # All times are monotonic seconds.
        self.min_queued, self.progress_at = sys.maxsize, 0.0  # fewest queued records during a wait, and since when
        self.stop_seen_at = 0.0  # last check before `stop` was set
        self.failure: str | None = None
        self.producer = self._new_client()

    def _new_client(self) -> Producer:
        self.outages_before_client = self.outage.count
        return Producer({**self.config, "error_cb": self.outage.begin, "on_delivery": self._on_delivery})

    def write_batch(self, values: list[list[Outgoing]]) -> None:
        """Queue records in the client. Raises DeliveryError, also for earlier records, and OwnershipError."""
        self.owner.check()
        if self.outage.count > self.outages_before_client and not len(self.producer):
            self.producer = self._new_client()  # a client that lived through an outage may be stale: see `reconnect`
        for records in values:
            for record in records:
                self._produce(record)
        self.producer.poll(0)
        self._check()

    @SNAPSHOT_SECONDS.labels("kafka").time()
    def snapshot(self) -> None:
        """Wait until every record is delivered. Raises DeliveryError.

        The wait is bounded by `client.DELIVERY_TIMEOUT_S`, and by `STOP_GRACE_S` once `stop` is set.
        """
        self.min_queued = sys.maxsize
        while self.producer.flush(_FLUSH_INTERVAL_S):
            self._check_progress()
        self._check()
        self.outage.end()

    def close(self) -> None:
        """Discard records that are still queued: after a failure the next start writes them again."""
        if self.producer.flush(1):
            self.producer.purge()

    def _produce(self, record: Outgoing) -> None:
        topic, key, value, headers, partition = record
        name = client.topic_name(self.kafka_config, topic)
        self.min_queued = sys.maxsize
        while True:
            try:
                self.producer.produce(name, value, key, partition, headers=list(headers))
                return
            except BufferError:  # the queue is full: the broker is slower than the flow, or unavailable
                self.producer.poll(0.05)
                self._check_progress()
            except KafkaException as error:
                raise DeliveryError(f"A record for {topic} was refused: {error.args[0].str()}.") from error

    def _on_delivery(self, error: KafkaError, record: Any) -> None:
        if error is not None:
            self.failure = f"A record for {record.topic()} was not delivered: {error.str()}."

    def _check(self) -> None:
        if self.failure:
            raise DeliveryError(f"{self.failure} {_REWRITE}")

    def _check_progress(self) -> None:
        """While records are queued: raise DeliveryError if waiting cannot help. A slow broker makes progress."""
        self._check()
        now, queued = time.monotonic(), len(self.producer)
        if queued < self.min_queued:
            self.min_queued, self.progress_at = queued, now
        if not self.stop.is_set():
            self.stop_seen_at = now
        if now - max(self.progress_at, self.stop_seen_at) > STOP_GRACE_S:
            raise DeliveryError(
                f"The flow was asked to stop, and Kafka accepted no record for {STOP_GRACE_S:.0f} s. {_REWRITE}"
            )
        if now - self.progress_at > reconnect.STALE_CLIENT_S and self._is_stale():
            raise DeliveryError(
                f"The producer is stale: Kafka is available again, but the client does not reconnect. {_REWRITE}"
            )

    def _is_stale(self) -> bool:
        """Whether a new client reaches the broker and this one does not."""
        if time.monotonic() - self.broker_probe.answered_at > reconnect.STALE_CLIENT_S:
            self.broker_probe.start()
            return False
        try:
            self.producer.list_topics(timeout=_STALE_CHECK_TIMEOUT_S)
        except KafkaException:
            return True
        return False
