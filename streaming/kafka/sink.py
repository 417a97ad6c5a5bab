"""Records out of a dataflow into Kafka: every delivery is checked, and an epoch waits until its records lie there.

The engine holds an epoch back until `snapshot()` has returned, so nothing counts as done that the broker does not have.
A broker that is away is waited for; a flow that is asked to stop meanwhile gives up soon, and loses nothing: the epoch
is not done, and the next start writes it again. So does one whose client does not find a broker that is back.
"""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Producer

from streaming.commit_metrics import SNAPSHOT
from streaming.kafka import client
from streaming.kafka.client import UndeliveredError

GRACE: Final = 3.0  # seconds that a flow which is asked to stop still waits for the broker
_LOOK: Final = 0.2  # seconds between two looks at `stop`
_ANSWER: Final = 2.0  # seconds for the answer to a client that looks deaf


class Outgoing(NamedTuple):
    """A record to be written; without a partition its key decides."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int = -1


class KafkaSink(FixedPartitionedSink[list[Outgoing], None]):
    """Records to the topics they name. Items are (key, records); order holds within a key, `shards` share the keys.

    Once `stop` is set, a broker that takes nothing is waited for `GRACE` seconds more.
    """

    def __init__(self, config: Mapping[str, str], shards: int = 1, stop: threading.Event | None = None) -> None:
        self.config, self.shards, self.stop = config, shards, stop or threading.Event()

    def list_parts(self) -> list[str]:
        """The shards."""
        return [f"{shard:03d}" for shard in range(self.shards)]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Shard":
        """A producer."""
        return _Shard(self.config, self.stop)


class _Shard(StatefulSinkPartition[list[Outgoing], None]):
    """One producer. It sends while the flow goes on; `snapshot` waits for the last delivery."""

    def __init__(self, config: Mapping[str, str], stop: threading.Event) -> None:
        self.config, self.stop = client.producing(config), stop
        self.outage, self.broker_probe = client.Outage("Writing"), client.BrokerProbe(config)
        self.least, self.moved = sys.maxsize, 0.0  # while we wait: the fewest records that did, since when (monotonic)
        self.stopping = 0.0  # since when we wait although the flow is to stop
        self.failure: str | None = None
        self.producer = self._client()

    def _client(self) -> Producer:
        self.trusted = self.outage.count
        return Producer({**self.config, "error_cb": self.outage.begin, "on_delivery": self._failed})

    def write_batch(self, values: list[list[Outgoing]]) -> None:
        """Hand records to the client. Raises UndeliveredError, also for earlier ones."""
        if self.outage.count > self.trusted and not len(self.producer):
            self.producer = self._client()  # see broker.Witness
        for records in values:
            for record in records:
                self._produce(record)
        self.producer.poll(0)
        self._check()

    @SNAPSHOT.labels("kafka").time()
    def snapshot(self) -> None:
        """Wait until every record is delivered: bounded, for each gives up after DELIVERY, and all soon after `stop`.
        Raises UndeliveredError."""
        self.least = sys.maxsize
        while self.producer.flush(_LOOK):
            self._wait()
        self._check()
        self.outage.end()

    def close(self) -> None:
        """Nothing is left after a snapshot; what is left after a failure will be written again."""
        if self.producer.flush(1):
            self.producer.purge()

    def _produce(self, record: Outgoing) -> None:
        topic, key, value, headers, partition = record
        self.least = sys.maxsize
        while True:
            try:
                self.producer.produce(topic, value, key, partition, headers=list(headers))
                return
            except BufferError:  # the queue is full: the broker is slower than we, or away
                self.producer.poll(0.05)
                self._wait()
            except KafkaException as error:
                raise UndeliveredError(f"A record for {topic} was refused: {error.args[0].str()}.") from error

    def _failed(self, error: KafkaError, record: Any) -> None:
        if error is not None:
            self.failure = f"A record for {record.topic()} was not delivered: {error.str()}."

    def _check(self) -> None:
        if self.failure:
            raise UndeliveredError(f"{self.failure} What this epoch wrote is written again after a restart.")

    def _wait(self) -> None:
        """Between two looks at what waits: give up where it is in vain. A broker that is slow takes something."""
        self._check()
        now, waiting = time.monotonic(), len(self.producer)
        if waiting < self.least:
            self.least, self.moved = waiting, now
        if not self.stop.is_set():
            self.stopping = now
        if now - max(self.moved, self.stopping) > GRACE:
            raise UndeliveredError(
                f"Kafka took nothing of the last epoch for {GRACE:.0f} s while the flow was to stop; nothing is lost: "
                "what it wrote is written again after a restart."
            )
        if now - self.moved > client.DEAF and self._deaf():
            raise UndeliveredError(
                "The client that writes does not find Kafka again, which is back; nothing is lost: what this epoch "
                "wrote is written again after a restart."
            )

    def _deaf(self) -> bool:
        """Whether a new client reaches the broker, and this one does not."""
        if time.monotonic() - self.broker_probe.answered > client.DEAF:
            self.broker_probe.ask()
            return False
        try:
            self.producer.list_topics(timeout=_ANSWER)
        except KafkaException:
            return True
        return False
