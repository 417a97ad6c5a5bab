"""Writes records from a dataflow into Kafka, and ends an epoch only after the broker has acknowledged its records.

The engine completes an epoch after `snapshot()` has returned, so nothing counts as done that the broker does not have.
The sink waits while a broker is unavailable. It gives up soon if the flow is asked to stop meanwhile, or if its client
is stale. Nothing is lost then: the epoch is not complete, and the next start writes it again.

With transactions the broker itself fences a replaced process (Kafka's transactional producer, KIP-98). A process that
stalls after `owner.check()` and wakes later cannot write anything: the producer of its successor, with the same
transactional id, has ended its transaction. There is one transaction per epoch, which costs nothing per record, and the
records of an open or aborted one are read (`client.consumer_config`), so that a list never waits for the end of an
epoch. An aborted one was written by the owner, and its successor repeats it, as after any crash.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Producer

from streaming.commit_metrics import SNAPSHOT_SECONDS
from streaming.errors import DeliveryError, OwnershipError
from streaming.kafka import client, reconnect
from streaming.kafka.ownership import SOLE_PROCESS, Owner

STOP_GRACE_S: Final = 3.0  # how long a flow that is asked to stop waits for a broker that accepts nothing
_FLUSH_INTERVAL_S: Final = 0.2  # between two checks of `stop`
_RETRY_INTERVAL_S: Final = 0.02  # of a call about transactions
_STALE_CHECK_TIMEOUT_S: Final = 2.0  # for the broker's answer to a client that may be stale
_FENCED: Final = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
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
    most `STOP_GRACE_S` for a broker that accepts nothing. With `transactional` it fences earlier processes: the
    transactional id of a shard is the flow's and the step's name, and the shard's.
    """

    def __init__(
        self,
        config: Mapping[str, str],
        shards: int = 1,
        stop: threading.Event | None = None,
        owner: Owner = SOLE_PROCESS,
        transactional: bool = False,
    ) -> None:
        self.config, self.shards, self.stop, self.owner = config, shards, stop or threading.Event(), owner
        self.transactional = transactional

    def list_parts(self) -> list[str]:
        """The names of the shards."""
        return [f"{shard:03d}" for shard in range(self.shards)]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Shard":
        """Create a producer. Raises DeliveryError, OwnershipError."""
        return _Shard(self.config, self.stop, self.owner, f"{step_id}.{for_part}" if self.transactional else "")


class _Shard(StatefulSinkPartition[list[Outgoing], None]):
    """One producer. It sends while the flow continues; `snapshot` waits for the last delivery."""

    def __init__(self, config: Mapping[str, str], stop: threading.Event, owner: Owner, transactional_id: str) -> None:
        self.owner, self.transactional_id, self.in_transaction = owner, transactional_id, False
        self.kafka_config, self.config, self.stop = config, client.producer_config(config, transactional_id), stop
        self.outage, self.broker_probe = reconnect.Outage("Kafka sink"), reconnect.BrokerProbe(config)
        # All times are monotonic seconds.
        self.min_queued, self.progress_at = sys.maxsize, 0.0  # fewest queued records during a wait, and since when
        self.stop_seen_at = 0.0  # last check before `stop` was set
        self.failure: str | None = None
        self.is_fenced = False
        self.connection = reconnect.ReconnectingClient(self._new_client, self.outage)
        self._fence()

    @property
    def producer(self) -> Producer:
        return self.connection.current

    def _new_client(self, on_error: Callable[[KafkaError], None]) -> Producer:
        return Producer({**self.config, "error_cb": on_error, "on_delivery": self._on_delivery})

    def _fence(self) -> None:
        """Fence the earlier producers with this transactional id."""
        if self.transactional_id:
            with self._client_errors():
                self._complete(self.producer.init_transactions)

    def write_batch(self, values: list[list[Outgoing]]) -> None:
        """Queue records in the client. Raises DeliveryError, also for earlier records, and OwnershipError."""
        self.owner.check()
        if self.connection.may_be_stale and not len(self.producer) and not self.in_transaction:
            self.connection.replace()
            self._fence()
        with self._client_errors():
            if self.transactional_id and not self.in_transaction:
                self.producer.begin_transaction()
                self.in_transaction = True
            for records in values:
                for record in records:
                    self._produce(record)
            self.producer.poll(0)
        self._check()

    @SNAPSHOT_SECONDS.labels("kafka").time()
    def snapshot(self) -> None:
        """Wait until every record is delivered, and end the transaction. Raises DeliveryError, OwnershipError.

        The wait is bounded by `client.DELIVERY_TIMEOUT_S`, and by `STOP_GRACE_S` once `stop` is set.
        """
        self.min_queued = sys.maxsize
        with self._client_errors():
            while self.producer.flush(_FLUSH_INTERVAL_S):
                self._check_progress()
            self._check()
            if self.in_transaction:
                self._complete(self.producer.commit_transaction)
                self.in_transaction = False
        self.outage.end()

    def close(self) -> None:
        """Discard records that are still queued: after a failure the next start writes them again."""
        with suppress(KafkaException):  # the producer is fenced
            if self.producer.flush(1):
                self.producer.purge()

    @contextmanager
    def _client_errors(self) -> Iterator[None]:
        """Raise the client's errors as DeliveryError or OwnershipError. Once the client is fenced, any call raises."""
        try:
            yield
        except KafkaException as error:
            self._fail("Kafka refuses to write", error.args[0])
            self._check()

    def _complete(self, call: Callable[[float], None]) -> None:
        """Make a call about transactions. After a temporary error the client continues it with the next attempt."""
        self.min_queued = sys.maxsize
        while True:
            try:
                return call(_FLUSH_INTERVAL_S)
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
                self._check_progress()
                time.sleep(_RETRY_INTERVAL_S)

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
                self.producer.poll(0)  # raises the cause, if the client was fenced before
                self._fail(f"A record for {topic} was refused", error.args[0])
                self._check()

    def _on_delivery(self, error: KafkaError | None, record: Any) -> None:
        if error is not None:
            self._fail(f"A record for {record.topic()} was not delivered", error)

    def _fail(self, what: str, error: KafkaError) -> None:
        self.is_fenced = self.is_fenced or error.code() in _FENCED
        self.failure = self.failure or f"{what}: {error.str()}."

    def _check(self) -> None:
        if self.is_fenced:
            self.owner.check()  # raises an error with the name of the process that has taken over
            raise OwnershipError(f"Kafka fences this process, or its transaction was open for too long. {_REWRITE}")
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
