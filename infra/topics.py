"""Create the project's topics, and refuse ones that would break it.

A user's partition decides which of its writes is the newest, so the number of partitions of a topic is fixed for life:
one that exists with another number is an error, never a change. Creating again does nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

from infra.errors import TopicError
from streaming.topics import Topic

TIMEOUT: Final = 15.0  # seconds for the broker's answer: the client's own limit, since it crashes if left earlier


def create(config: Mapping[str, str], topics: Sequence[Topic]) -> list[str]:
    """Create what is missing and return its names. Raises TopicError on another number of partitions."""
    admin = AdminClient({**config})
    existing = partitions(config)
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
    return [topic.topic for topic in missing]


def partitions(config: Mapping[str, str]) -> dict[str, int]:
    """How many partitions each topic of the broker has. Raises TopicError where no broker answers."""
    try:
        found = AdminClient({**config}).list_topics(timeout=TIMEOUT).topics
    except KafkaException as error:
        raise TopicError(
            f"No Kafka answers at {config.get('bootstrap.servers')} ({error.args[0].str()}): "
            "start one, or set PREMIERE_BOOTSTRAP_SERVERS."
        ) from error
    return {name: len(topic.partitions) for name, topic in found.items()}


def identity(config: Mapping[str, str], names: Sequence[str]) -> str:
    """What tells these logs from others of the same names: the cluster's id, and a digest of the topics' ids.

    A position is worth nothing on another log: the embedded broker starts empty each time, a topic may be made anew.
    """
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
