"""Client configuration and cluster metadata, shared by everything that connects to Kafka.

Clients reconnect by themselves, with back-off. Errors that waiting cannot fix raise a StreamError.

Several deployments can share one Kafka. The item `PREFIX_KEY` of a configuration is the deployment's prefix. The code
names topics and consumer groups without it. `topic_name` and `consumer_config` add it, and only this package and
`infra.topics` see names with a prefix. A client refuses a configuration with this item, so none can be made without
`client_config`, `consumer_config` or `producer_config` by mistake.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, TopicMetadata

from streaming.errors import BrokerAccessError, BrokerUnavailableError, StreamError, TopicMissingError
from streaming.topics import PUBLIC_TOPICS

PREFIX_KEY: Final = "premiere.prefix"  # of a configuration; missing: no prefix
BROKER_TIMEOUT_S: Final = 15.0  # for the broker's answer
DELIVERY_TIMEOUT_S: Final = 300.0  # how long a record may wait for its broker
DISCARD_THREAD: Final = "discard clients"
TRANSACTION_TIMEOUT_S: Final = 600.0  # after which the broker ends a transaction; longer than any wait for a delivery

_CONSUMER: Final[dict[str, Any]] = {
    "fetch.wait.max.ms": 40,  # Tansu delays an answer by up to this, and each partition fetches this often
    "queued.max.messages.kbytes": 8192,  # per partition
    "reconnect.backoff.max.ms": 1000,
    "log_level": 2,  # `Outage` logs each outage once instead
}
_CONSUMER_FIXED: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",  # the default silently jumps to the end of the log
}
_PRODUCER: Final[dict[str, Any]] = {
    "linger.ms": 2,
    "compression.type": "lz4",
    "partitioner": "murmur2_random",  # Kafka's default: every client maps a key to the same partition
    "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
    "reconnect.backoff.max.ms": 1000,
    "log_level": 2,
}
_PRODUCER_FIXED: Final[dict[str, Any]] = {
    "enable.idempotence": True,
    "acks": "all",
    "delivery.report.only.error": True,
}
_TEMPORARY: Final = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT)
_ACCESS_DENIED: Final = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)
_NO_LEADER: Final = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
_NO_TOPIC: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


def topic_name(config: Mapping[str, Any], topic: str) -> str:
    """The name of a topic on the broker, and of a group or a transactional id: with the deployment's prefix."""
    prefix = config.get(PREFIX_KEY)
    return f"{prefix}.{topic}" if prefix else topic


def client_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a Kafka client accepts."""
    return {name: value for name, value in config.items() if name != PREFIX_KEY}


def admin_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an admin client. It logs only critical messages: its errors are exceptions."""
    return {"log_level": 2, **client_config(config)}


def consumer_config(config: Mapping[str, Any], group: str, topic: str = "") -> dict[str, Any]:
    """A consumer's settings: our defaults, the caller's, and the fixed ones that nobody may override.

    Producers of a public topic may use transactions, so only committed records of it are read. The flows' transactions
    only fence replaced processes (see `sink`): records of internal topics are read at once, even if not committed.
    """
    fixed = {**_CONSUMER_FIXED, "isolation.level": f"read_{'' if topic in PUBLIC_TOPICS else 'un'}committed"}
    return {**_CONSUMER, **client_config(config), **fixed, "group.id": topic_name(config, group)}


def producer_config(config: Mapping[str, Any], transactional_id: str = "") -> dict[str, Any]:
    """A producer's settings: our defaults, the caller's, and the fixed ones that nobody may override.

    Writes in transactions if it has a transactional id.
    """
    fixed = dict(_PRODUCER_FIXED)
    if transactional_id:
        fixed["transactional.id"] = topic_name(config, transactional_id)
        fixed["transaction.timeout.ms"] = int(TRANSACTION_TIMEOUT_S * 1000)
    return {**_PRODUCER, **client_config(config), **fixed}


def discard(clients: list[Any]) -> None:
    """Destroy clients in a daemon thread, because that may block for ever after an outage (librdkafka issue 4519).

    Empties the list. It must hold the only references, else the thread that drops the last one destroys the client.
    """
    discarded = clients[:]
    clients.clear()
    threading.Thread(target=_pop_all, args=(discarded,), name=DISCARD_THREAD, daemon=True).start()


def _pop_all(clients: list[Any]) -> None:
    while clients:
        clients.pop()


def topic_partitions(config: Mapping[str, Any], topic: str, timeout_s: float = BROKER_TIMEOUT_S) -> list[int]:
    """The partitions of a topic. Raises BrokerUnavailableError, BrokerAccessError, TopicMissingError."""
    # Lists all topics, because some brokers create a topic that a client asks for by name.
    metadata = topic_metadata(config, timeout_s).get(topic)
    if metadata is None or metadata.error is not None:
        raise topic_missing_error(config, topic)
    return sorted(metadata.partitions)


def topic_metadata(config: Mapping[str, Any], timeout_s: float = BROKER_TIMEOUT_S) -> dict[str, TopicMetadata]:
    """The metadata of the deployment's topics, by name. Raises BrokerUnavailableError, BrokerAccessError.

    Without a prefix these are all topics of the broker.
    """
    start = topic_name(config, "")
    found = cluster_metadata(config, timeout_s).topics
    return {name.removeprefix(start): topic for name, topic in found.items() if name.startswith(start)}


def cluster_metadata(config: Mapping[str, Any], timeout_s: float = BROKER_TIMEOUT_S) -> ClusterMetadata:
    """The brokers and their topics. Raises BrokerUnavailableError, BrokerAccessError.

    The client reports a denied access only through its error callback; the call itself just times out.
    """
    reported: list[KafkaError] = []
    try:
        clients = [AdminClient({**admin_config(config), "error_cb": reported.append})]  # type: ignore[dict-item]
    except KafkaException as error:
        raise BrokerAccessError(f"The Kafka client settings are invalid: {error.args[0].str()}.") from None
    try:
        return _list_topics(clients, reported, config, timeout_s)
    finally:
        discard(clients)


def _list_topics(
    clients: list[AdminClient], reported: list[KafkaError], config: Mapping[str, Any], timeout_s: float
) -> ClusterMetadata:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return clients[0].list_topics(timeout=min(1.0, timeout_s))
        except KafkaException as error:
            clients[0].poll(0)
            for denied in (one for one in reported if one.code() in _ACCESS_DENIED):
                raise BrokerAccessError(
                    f"Kafka at {config.get('bootstrap.servers')} denies access ({denied.str()}): "
                    "check the settings kafka_security_protocol, kafka_sasl_* and kafka_ssl_*."
                ) from None
            if time.monotonic() > deadline:
                raise broker_unavailable_error(config, error.args[0].str()) from error


def earliest_offset(consumer: Consumer, topic: str, partition: int) -> int:
    """The first offset of a partition, as `offset_range`."""
    return offset_range(consumer, topic, partition)[0]


def offset_range(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """The first offset of a partition and the end, as numbers that a snapshot can hold.

    `topic` is the name on the broker. Raises StreamError.
    """
    deadline = time.monotonic() + BROKER_TIMEOUT_S
    while True:
        try:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=BROKER_TIMEOUT_S)
            return int(first), int(end)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                raise StreamError(f"The offsets of {topic}[{partition}] are unknown: {error.args[0].str()}.") from error
            time.sleep(0.1)


def raise_unless_temporary(error: KafkaError, config: Mapping[str, Any], topic: str) -> None:
    """Return if waiting may help, because the client retries with back-off; else raise StreamError."""
    if error.code() in _NO_TOPIC:
        raise topic_missing_error(config, topic)
    if not (error.retriable() or error.code() in _TEMPORARY):
        raise StreamError(f"Reading {topic} failed: {error.str()}.")


def topic_missing_error(config: Mapping[str, Any], topic: str) -> TopicMissingError:
    """The error for a topic that does not exist."""
    return TopicMissingError(
        f"There is no topic {topic_name(config, topic)} at {config.get('bootstrap.servers')}: "
        "create it with `premiere topics --create`."
    )


def broker_unavailable_error(config: Mapping[str, Any], reason: str) -> BrokerUnavailableError:
    """The error for a broker that does not answer."""
    return BrokerUnavailableError(
        f"No Kafka answers at {config.get('bootstrap.servers')} ({reason}): "
        "start it, or set PREMIERE_BOOTSTRAP_SERVERS."
    )
