"""What every client of the broker shares: its settings, what can go wrong with it, and what a topic is made of.

A broker that is away is waited for, with the client's own back-off, and said once; what waiting cannot mend is an error
with a name.
"""

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, TopicMetadata

TIMEOUT: Final = 15.0  # seconds for the broker's answer
RENEW: Final = 60.0  # seconds after which an unchanged group offset is committed again
LAST: Final = 1.0  # seconds that a flow which has ended waits to commit once more
DELIVERY: Final = 300.0  # seconds that a record may wait for its broker
DEAF: Final = 10.0  # seconds without a word after which a client is no longer taken for one that will hear again

_CONSUMER: Final[dict[str, Any]] = {
    "fetch.wait.max.ms": 40,  # Tansu answers late by up to this, and is asked so often by each partition
    "queued.max.messages.kbytes": 8192,  # a partition
    "reconnect.backoff.max.ms": 1000,
    "log_level": 2,  # we say it ourselves, once an outage
}
_CONSUMER_FIXED: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",  # the default jumps to the log's end without a word
}
_PRODUCER: Final[dict[str, Any]] = {
    "linger.ms": 2,
    "compression.type": "lz4",
    "partitioner": "murmur2_random",  # Kafka's own, so that every client finds a key in the same partition
    "delivery.timeout.ms": int(DELIVERY * 1000),
    "reconnect.backoff.max.ms": 1000,
    "log_level": 2,
}
_PRODUCER_FIXED: Final[dict[str, Any]] = {
    "enable.idempotence": True,
    "acks": "all",
    "delivery.report.only.error": True,
}
_PASSING: Final = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT)
_REFUSING: Final = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)
_ELECTING: Final = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
_NO_TOPIC: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)

log: Final = logging.getLogger(__name__)


class StreamError(Exception):
    """A flow cannot go on with this broker or topic; the message says why, and the remedy."""


class BrokerSilentError(StreamError):
    """No broker answers."""


class RefusedError(StreamError):
    """The broker does not let us in, or the settings of the connection cannot be used."""


class TopicMissingError(StreamError):
    """The topic does not exist."""


class PositionLostError(StreamError):
    """The position to go on from is not in the log: cut off by retention, or the log was made anew."""


class UndeliveredError(StreamError):
    """The broker did not take a record."""


def stream_error(error: BaseException | None) -> StreamError | None:
    """The StreamError behind an exception of the engine, which wraps what a source or a sink raised."""
    while error is not None and not isinstance(error, StreamError):
        error = error.__cause__
    return error


class Outage:
    """Says once that the broker is away, and once that it is back. `since`: when it began, or when a new client took
    over (monotonic seconds) · `count`: outages so far."""

    def __init__(self, what: str) -> None:
        self.what, self.on, self.since, self.count = what, False, 0.0, 0

    def begin(self, error: KafkaError) -> None:
        """The client reports an error that passes."""
        if not self.on:
            self.on, self.since, self.count = True, time.monotonic(), self.count + 1
            log.warning("%s: Kafka does not answer (%s); waiting until it does.", self.what, error.str())

    def end(self) -> None:
        """The broker answered."""
        if self.on:
            self.on = False
            log.warning("%s: Kafka answers again.", self.what)


class BrokerProbe:
    """Tells whether a broker that a client has lost is there: a client that is new asks it, in a thread.

    For a client that lived through an outage may stay deaf for ever. Where the first broker that comes back knows of
    none yet, librdkafka forgets them all and never asks again (its issue 5301, open with 2.16; of clients of one broker
    on a busy machine 2 to 6 in a hundred at each restart, measured, with 2.11 and `metadata.recovery.strategy` "none"
    too).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.answered = float("-inf")  # when the broker last did, monotonic seconds
        self._asking: threading.Thread | None = None

    def ask(self) -> None:
        """Ask, unless a question is under way; `answered` is told the answer."""
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask, daemon=True, name="witness")
            self._asking.start()

    def _ask(self) -> None:
        with suppress(StreamError):
            if cluster(self.config, DEAF).brokers:
                self.answered = time.monotonic()


class GroupPosition:
    """A partition's offset in its consumer group: committed without waiting, one commit at a time.

    So nothing piles up while the broker is away. An unchanged offset is renewed now and then: groups at rest expire.
    """

    def __init__(self, topic: str, partition: int, outage: Outage) -> None:
        self.topic, self.partition, self.outage = topic, partition, outage
        self.offset, self.asked, self.waiting = -1, 0.0, False

    def commit(self, consumer: Consumer, offset: int) -> None:
        """Commit, unless it is known or an earlier commit has no answer yet: the next call will.

        While the broker is away it is also how one that has nothing to read learns that it is back.
        """
        now = time.monotonic()
        if not self.waiting and (offset != self.offset or self.outage.on or now - self.asked > RENEW):
            self.offset, self.asked, self.waiting = offset, now, True
            consumer.commit(offsets=[TopicPartition(self.topic, self.partition, offset)], asynchronous=True)

    def answered(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """The client's callback."""
        self.waiting = False
        if error is None:
            self.outage.end()
        else:
            self.offset = -1  # once more
            self.outage.begin(error)


def consuming(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """A consumer's settings: ours, the caller's, and those that nobody may change."""
    return {**_CONSUMER, **config, **_CONSUMER_FIXED, "group.id": group}


def producing(config: Mapping[str, Any]) -> dict[str, Any]:
    """A producer's settings, likewise."""
    return {**_PRODUCER, **config, **_PRODUCER_FIXED}


def partitions(config: Mapping[str, Any], topic: str, timeout: float = TIMEOUT) -> list[int]:
    """The partitions of a topic. Raises BrokerSilentError, RefusedError, TopicMissingError."""
    found = known_topics(config, timeout).get(topic)  # of all: asked by name, some brokers make it
    if found is None or found.error is not None:
        raise missing(config, topic)
    return sorted(found.partitions)


def known_topics(config: Mapping[str, Any], timeout: float = TIMEOUT) -> dict[str, TopicMetadata]:
    """Every topic of the broker. Raises BrokerSilentError, RefusedError."""
    return dict(cluster(config, timeout).topics)


def cluster(config: Mapping[str, Any], timeout: float = TIMEOUT) -> ClusterMetadata:
    """The brokers and their topics. Raises BrokerSilentError, RefusedError: the client tells the two apart only
    aside."""
    aside: list[KafkaError] = []
    try:
        client = AdminClient({"log_level": 2, **config, "error_cb": aside.append})  # type: ignore[dict-item]
    except KafkaException as error:
        raise RefusedError(f"The settings of Kafka's clients cannot be used: {error.args[0].str()}.") from None
    deadline = time.monotonic() + timeout
    while True:
        try:
            return client.list_topics(timeout=min(1.0, timeout))
        except KafkaException as error:
            client.poll(0)
            for refusal in (told for told in aside if told.code() in _REFUSING):
                raise RefusedError(
                    f"Kafka at {config.get('bootstrap.servers')} does not let us in ({refusal.str()}): "
                    "see the settings kafka_security_protocol, kafka_sasl_* and kafka_ssl_*."
                ) from None
            if time.monotonic() > deadline:
                raise silent(config, error.args[0].str()) from error


def beginning(consumer: Consumer, topic: str, partition: int) -> int:
    """The first offset of a partition: a position that can be snapshotted, unlike "the beginning"."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT)[0])
        except KafkaException as error:
            if error.args[0].code() not in _ELECTING or time.monotonic() > deadline:
                raise StreamError(
                    f"The beginning of {topic}[{partition}] is not known: {error.args[0].str()}."
                ) from error
            time.sleep(0.1)


def commit_offsets(config: Mapping[str, Any], topic: str, offsets: Mapping[int, int]) -> None:
    """Commit next offsets by partition to the group that `config` names, and wait for it. A failure is only said."""
    if not offsets:
        return
    consumer = Consumer({**config})
    try:
        positions = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        consumer.list_topics(topic, timeout=LAST)  # a commit would wait 45 s for a broker that is gone (measured)
        consumer.commit(offsets=positions, asynchronous=False)
    except KafkaException as error:
        log.warning("%s: the last offsets were not committed (%s).", topic, error.args[0].str())
    finally:
        consumer.close()


def check_passing(error: KafkaError, config: Mapping[str, Any], topic: str) -> None:
    """Return where waiting may help (the client tries again by itself, with back-off); else raise StreamError."""
    if error.code() in _NO_TOPIC:
        raise missing(config, topic)
    if not (error.retriable() or error.code() in _PASSING):
        raise StreamError(f"Reading {topic} failed: {error.str()}.")


def missing(config: Mapping[str, Any], topic: str) -> TopicMissingError:
    """A topic does not exist."""
    return TopicMissingError(
        f"There is no topic {topic} at {config.get('bootstrap.servers')}: make it (`premiere topics`)."
    )


def silent(config: Mapping[str, Any], why: str) -> BrokerSilentError:
    """No broker answers."""
    return BrokerSilentError(
        f"No Kafka answers at {config.get('bootstrap.servers')} ({why}): start it, or set PREMIERE_BOOTSTRAP_SERVERS."
    )
