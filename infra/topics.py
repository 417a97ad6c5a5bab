"""Create, inspect and delete the project's topics.

Offsets within a user's partition order the writes for that user, so the number of partitions of a topic must never
change. A topic that exists with another number of partitions is an error. Creating topics is idempotent.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from infra.errors import KafkaSettingsError, TopicError
from streaming.errors import BrokerAccessError, StreamError
from streaming.kafka.client import admin_config, topic_metadata, topic_name
from streaming.topics import Topic

log: Final = logging.getLogger(__name__)

TIMESTAMP_TYPE: Final = "message.timestamp.type"
EMBEDDED_LOGS: Final = "premiere-"  # start of the log identities of embedded brokers, which never return
ADMIN_TIMEOUT_S: Final = 15.0  # also the client's own timeout: it crashes if the program ends before that


def create_topics(config: Mapping[str, str], topics: Sequence[Topic]) -> list[str]:
    """Create missing topics, wait until they are usable, and return their names.

    Raises TopicError if a topic exists with another number of partitions or another kind of record times, or cannot be
    created.
    """
    existing = partition_counts(config)
    admin = AdminClient(admin_config(config))
    _check_timestamp_types(config, admin, [topic for topic in topics if topic.name in existing])
    for topic in topics:
        found = existing.get(topic.name)
        if found is not None and found != topic.partitions:
            raise TopicError(
                f"Topic {topic_name(config, topic.name)} has {found} partitions instead of {topic.partitions}, and the "
                f"number cannot be changed: set PREMIERE_EVENT_PARTITIONS={found}, or use a broker without that topic."
            )
    # replication factor -1: the default of the broker
    missing = [
        NewTopic(topic_name(config, t.name), t.partitions, -1, config=t.config)
        for t in topics
        if t.name not in existing
    ]
    if not missing:
        return []
    for name, future in admin.create_topics(missing, request_timeout=ADMIN_TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process created it meanwhile
                raise TopicError(f"Topic {name} could not be created: {error.args[0].str()}.") from error
    _wait_for_leaders(admin, {TopicPartition(t.topic, p) for t in missing for p in range(t.num_partitions)})
    return [topic.name for topic in topics if topic.name not in existing]


def _check_timestamp_types(config: Mapping[str, str], admin: AdminClient, topics: Iterable[Topic]) -> None:
    """Check that the broker, and no producer, sets the record times of the topics that need it. Raises TopicError.

    Erasure requests and withdrawals take effect by record time. The embedded broker does not return this setting.
    """
    public = [topic for topic in topics if TIMESTAMP_TYPE in topic.config]
    wanted = {topic_name(config, topic.name): topic.config[TIMESTAMP_TYPE] for topic in public}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in wanted]
    answers = admin.describe_configs(resources, request_timeout=ADMIN_TIMEOUT_S) if resources else {}
    for resource, future in answers.items():
        try:
            entry = future.result().get(TIMESTAMP_TYPE)
        except KafkaException as error:
            log.warning("Kafka does not tell the settings of topic %s: %s", resource.name, error.args[0].str())
            continue
        if entry is not None and entry.value != wanted[resource.name]:
            raise TopicError(
                f"Topic {resource.name} has {TIMESTAMP_TYPE}={entry.value}, so producers could set record times: run "
                f"`kafka-configs.sh --alter --entity-type topics --entity-name {resource.name} "
                f"--add-config {TIMESTAMP_TYPE}={wanted[resource.name]}`."
            )


def _wait_for_leaders(admin: AdminClient, partitions: Iterable[TopicPartition]) -> None:
    """Return once each partition has a leader that answers: Apache Kafka lists a topic before that is so."""
    deadline = time.monotonic() + ADMIN_TIMEOUT_S
    while True:
        specs = {partition: OffsetSpec.earliest() for partition in partitions}
        futures = admin.list_offsets(specs, request_timeout=ADMIN_TIMEOUT_S)
        failed = {partition: future.exception() for partition, future in futures.items() if future.exception()}
        if not failed:
            return
        if time.monotonic() > deadline:
            partition, error = next(iter(failed.items()))
            raise TopicError(f"Topic {partition.topic} was created but cannot be used: {error}.")
        time.sleep(0.05)


@contextmanager
def temporary_topics(config: Mapping[str, str], topics: Sequence[Topic]) -> Iterator[None]:
    """Create topics on an external broker, and delete them on exit. Raises TopicError if one of them exists already.

    This protects the records of another deployment: they are neither mixed with those of this context nor deleted.
    """
    if existing := sorted({topic.name for topic in topics} & partition_counts(config).keys()):
        raise TopicError(
            f"Kafka at {config.get('bootstrap.servers')} already has a topic {topic_name(config, existing[0])}, and a "
            "demo needs empty topics: unset PREMIERE_BOOTSTRAP_SERVERS (KAFKA_BOOTSTRAP_SERVERS), so that it starts "
            "its own broker."
        )
    created = create_topics(config, topics)
    try:
        yield
    finally:
        delete_topics(config, created)


def delete_topics(config: Mapping[str, str], names: Sequence[str]) -> None:
    """Delete topics with their records; a missing topic is not an error. Raises TopicError."""
    admin, deleted = AdminClient(admin_config(config)), [topic_name(config, name) for name in names]
    for name, future in (admin.delete_topics(deleted, request_timeout=ADMIN_TIMEOUT_S) if names else {}).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicError(f"Topic {name} could not be deleted: {error.args[0].str()}.") from error


def partition_counts(config: Mapping[str, str], timeout_s: float = ADMIN_TIMEOUT_S) -> dict[str, int]:
    """Number of partitions of each topic, by name without the prefix.

    Raises TopicError if no broker answers, KafkaSettingsError if it refuses the login or the settings are invalid.
    """
    try:
        found = topic_metadata(config, timeout_s)
    except StreamError as error:
        raise topic_error(error) from error
    return {name: len(topic.partitions) for name, topic in found.items()}


def topic_error(error: StreamError) -> TopicError:
    """The same error for the command line."""
    return (KafkaSettingsError if isinstance(error, BrokerAccessError) else TopicError)(str(error))


def log_identity(config: Mapping[str, str], names: Sequence[str]) -> str:
    """An identifier of these topics: the cluster's id, and a digest of the topics' ids. Raises TopicError.

    Offsets are meaningless in another log of the same name: the embedded broker starts empty each time, and a topic may
    be deleted and created again.
    """
    partition_counts(config)  # raises a clear error if the broker does not answer or refuses
    admin = AdminClient(admin_config(config))
    try:
        cluster = admin.describe_cluster(request_timeout=ADMIN_TIMEOUT_S).result().cluster_id
        described = [topic_name(config, name) for name in names]
        found = admin.describe_topics(TopicCollection(described), request_timeout=ADMIN_TIMEOUT_S)
        ids = [str(found[name].result().topic_id) for name in described]
    except KafkaException as error:
        raise TopicError(
            f"Kafka cannot describe {', '.join(names)} ({error.args[0].str()}): run `premiere topics --create`."
        ) from error
    return f"{cluster}-{hashlib.blake2b(' '.join(ids).encode(), digest_size=6).hexdigest()}"
