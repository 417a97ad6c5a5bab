"""Create the project's topics, and refuse ones that would break it.

A user's partition decides which of its writes is the newest, so the number of partitions of a topic is fixed for life:
one that exists with another number is an error, never a change. Creating again does nothing.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from infra.errors import TopicError
from streaming.kafka.client import StreamError, known_topics
from streaming.topics import Topic

TIMEOUT: Final = 15.0  # seconds for the broker's answer: the client's own limit, since it crashes if left earlier


def create(config: Mapping[str, str], topics: Sequence[Topic]) -> list[str]:
    """Create what is missing, to its end, and return its names. Raises TopicError on another number of partitions."""
    existing = partitions(config)
    admin = AdminClient({**config})
    for topic in topics:
        found = existing.get(topic.name)
        if found is not None and found != topic.partitions:
            raise TopicError(
                f"Topic {topic.name} has {found} partitions and {topic.partitions} are asked for, but the number is "
                f"fixed for life: set PREMIERE_EVENT_PARTITIONS={found}, or use a broker without that topic."
            )
    # replication -1: as the broker is set up
    missing = [NewTopic(t.name, t.partitions, -1, config=t.config) for t in topics if t.name not in existing]
    if not missing:
        return []
    for name, future in admin.create_topics(missing, request_timeout=TIMEOUT).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was faster
                raise TopicError(f"Topic {name} could not be created: {error.args[0].str()}.") from error
    _await(admin, {TopicPartition(t.topic, p) for t in missing for p in range(t.num_partitions)})
    return [topic.topic for topic in missing]


def _await(admin: AdminClient, partitions: Iterable[TopicPartition]) -> None:
    """Return once each partition has a leader that answers: Apache Kafka tells of a topic before it has."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        asked = admin.list_offsets({at: OffsetSpec.earliest() for at in partitions}, request_timeout=TIMEOUT)
        failed = {at: future.exception() for at, future in asked.items() if future.exception()}
        if not failed:
            return
        if time.monotonic() > deadline:
            at, error = next(iter(failed.items()))
            raise TopicError(f"Topic {at.topic} was created and cannot be used: {error}.")
        time.sleep(0.05)


@contextmanager
def borrowed(config: Mapping[str, str], topics: Sequence[Topic]) -> Iterator[None]:
    """Topics on somebody's broker while the context lasts, and no longer. Raises TopicError where it has some of them.

    So nothing of another loop is mixed with what is done meanwhile, nor deleted after it.
    """
    if there := sorted({topic.name for topic in topics} & partitions(config).keys()):
        raise TopicError(
            f"Kafka at {config.get('bootstrap.servers')} has a topic {there[0]} already, and a demo needs an empty "
            "log: leave out PREMIERE_BOOTSTRAP_SERVERS (KAFKA_BOOTSTRAP_SERVERS), and it starts a broker of its own."
        )
    created = create(config, topics)
    try:
        yield
    finally:
        delete(config, created)


def delete(config: Mapping[str, str], names: Sequence[str]) -> None:
    """Delete topics with all that is in them; one that is gone is no error. Raises TopicError."""
    admin = AdminClient({**config})
    for name, future in (admin.delete_topics(list(names), request_timeout=TIMEOUT) if names else {}).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicError(f"Topic {name} could not be deleted: {error.args[0].str()}.") from error


def partitions(config: Mapping[str, str]) -> dict[str, int]:
    """How many partitions each topic of the broker has. Raises TopicError where no broker answers, or it refuses."""
    try:
        found = known_topics(config, TIMEOUT)
    except StreamError as error:
        raise TopicError(str(error)) from error
    return {name: len(topic.partitions) for name, topic in found.items()}


def identity(config: Mapping[str, str], names: Sequence[str]) -> str:
    """What tells these logs from others of the same names: the cluster's id, and a digest of the topics' ids.

    A position is worth nothing on another log: the embedded broker starts empty each time, a topic may be made anew.
    """
    partitions(config)  # tells a broker that is silent or refuses
    admin = AdminClient({**config})
    try:
        cluster = admin.describe_cluster(request_timeout=TIMEOUT).result().cluster_id
        found = admin.describe_topics(TopicCollection(list(names)), request_timeout=TIMEOUT)
        ids = [str(found[name].result().topic_id) for name in names]
    except KafkaException as error:
        raise TopicError(
            f"Kafka does not describe {', '.join(names)} ({error.args[0].str()}): run `premiere topics --create`."
        ) from error
    return f"{cluster}-{hashlib.blake2b(' '.join(ids).encode(), digest_size=6).hexdigest()}"
