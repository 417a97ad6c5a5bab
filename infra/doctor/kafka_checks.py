"""Checks of the broker: reachable, permissions, topics with their partitions, retention and record times, the clock."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from features.text_encoders import EncoderError, load_encoder
from infra.doctor.findings import Finding, Level
from infra.errors import TopicError
from infra.local.supervisor import FLOWS
from infra.settings import Settings
from infra.topics import ADMIN_TIMEOUT_S, TIMESTAMP_TYPE, partition_counts
from streaming import topics as t
from streaming.errors import BrokerUnavailableError, StreamError, TopicMissingError
from streaming.kafka.client import admin_config, consumer_config, topic_name, topic_partitions
from streaming.kafka.source import Message, read_all
from streaming.state.text_space import OtherEncoderError, check_encoder, newest_title_record
from streaming.state.title_embedder import TitleEmbedder, VectorSpace
from streaming.topics import Topic, topics

PART: Final = "kafka"
RETENTION: Final = "retention.ms"
CLEANUP: Final = "cleanup.policy"
MAX_CLOCK_DIFFERENCE_S: Final = 60.0
TAIL_RECORDS: Final = 64  # of the learner log that are read; the last ones may be markers of transactions
PARTITIONED_BY_USER: Final = (t.USER_EVENTS, t.ERASURE_REQUESTS)
TOPICS_OF_FLOW: Final[Mapping[str, frozenset[str]]] = {  # which it reads, writes or describes
    "features": frozenset({t.USER_EVENTS, t.ERASURE_REQUESTS, t.ACTIVITY, t.DEAD_LETTERS, t.OWNERS}),
    "titles": frozenset({t.TITLE_LAUNCHES, t.TITLE_WITHDRAWALS, t.ACTIVITY, t.TITLES, t.DEAD_LETTERS, t.OWNERS}),
    "learn": frozenset({t.ACTIVITY, t.MODEL_VERSIONS, t.OWNERS}),
    "publish": frozenset({t.ACTIVITY, t.TITLES, t.MODEL_VERSIONS, t.USER_EVENTS, t.TITLE_LAUNCHES, t.OWNERS}),
}


def kafka_findings(settings: Settings) -> Iterator[Finding]:
    """All checks that need the broker."""
    findings = list(topic_findings(settings, FLOWS, ADMIN_TIMEOUT_S))
    yield from findings
    if findings[0].level == "ok":  # the broker answers
        yield from _read_findings(settings.kafka_config())
        yield from _text_findings(settings)


def topic_findings(settings: Settings, flows: Collection[str], timeout_s: float) -> Iterator[Finding]:
    """Whether the broker answers, and has the topics of these flows with their partitions and settings.

    A flow may be permitted to see only its own topics. Each answer may take `timeout_s` seconds.
    """
    config = settings.kafka_config()
    try:
        counts = partition_counts(config, timeout_s)
    except TopicError as error:
        yield Finding("error", PART, str(error), may_pass=isinstance(error.__cause__, BrokerUnavailableError))
        return
    yield Finding("ok", PART, f"{settings.bootstrap_servers} answers")
    needed = frozenset[str]().union(*(TOPICS_OF_FLOW[flow] for flow in flows))
    wanted = [topic for topic in topics(settings.event_partitions) if topic.name in needed]
    yield from _partition_findings(wanted, counts)
    yield from _setting_findings(config, [topic for topic in wanted if topic.name in counts], timeout_s)


def _partition_findings(wanted: Sequence[Topic], counts: Mapping[str, int]) -> Iterator[Finding]:
    if missing := sorted(topic.name for topic in wanted if topic.name not in counts):
        yield Finding("error", PART, f"missing topics: {', '.join(missing)}", "Run `premiere topics --create`.")
    for name, partitions, _ in wanted:
        if counts.get(name, partitions) != partitions:
            remedy = f"Set PREMIERE_EVENT_PARTITIONS={counts[name]}, or use topics of another prefix."
            if name not in PARTITIONED_BY_USER:
                remedy = f"Delete the topic and run `premiere topics --create`; {name} must have one partition."
            yield Finding("error", PART, f"{name} has {counts[name]} partitions instead of {partitions}", remedy)
    if not missing:
        yield Finding("ok", PART, f"all {len(wanted)} topics exist")


def _setting_findings(config: Mapping[str, str], existing: Sequence[Topic], timeout_s: float) -> Iterator[Finding]:
    """The topics' settings against those with which `premiere topics --create` makes them."""
    admin = AdminClient(admin_config(config))
    wanted = {topic_name(config, topic.name): topic for topic in existing}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in wanted]
    answers = admin.describe_configs(resources, request_timeout=timeout_s) if resources else {}
    differing = 0
    for resource, future in answers.items():
        topic = wanted[resource.name]
        try:
            found: Mapping[str, Any] = future.result()
        except KafkaException as error:
            text = f"the settings of {topic.name} are unknown ({error.args[0].str()})"
            yield Finding("warning", PART, text, "Give this user DescribeConfigs on the topics.")
            differing += 1
            continue
        for name, value in {CLEANUP: "delete", **topic.config}.items():
            entry = found.get(name)
            if entry is None or entry.value == value:
                continue
            differing += 1
            level, harm = _harm(name, entry.value, value)
            yield Finding(
                level, PART, f"{topic.name} has {name}={entry.value}, not {value}: {harm}",
                f"Run `kafka-configs.sh --alter --entity-type topics --entity-name {resource.name} --add-config "
                f"{name}={value}`.",
            )  # fmt: skip
    if not differing:
        yield Finding("ok", PART, "the topics have the recommended settings")


def _harm(name: str, found: str, wanted: str) -> tuple[Level, str]:
    """What another value of a topic's setting does."""
    if name == TIMESTAMP_TYPE:
        return "error", "producers could set record times"
    if name == CLEANUP:
        return "error", "Kafka deletes records that the flows need"
    if name == RETENTION and 0 <= int(found) < int(wanted):
        return "warning", "records may be deleted before they are read"
    return "warning", "this is not the default"


def _read_findings(config: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the learner log can be read, and whether the clocks of its newest record and of this host agree."""
    try:
        newest = max((message.appended for message in _newest_records(config, t.ACTIVITY)), default=0)
    except TopicMissingError:
        return
    except StreamError as error:
        yield Finding("error", PART, str(error), "docs/security.md lists the permissions of each flow.")
        return
    ahead = newest / 1000 - time.time()
    if ahead > MAX_CLOCK_DIFFERENCE_S:
        yield Finding(
            "error", "clock", f"the newest record of {t.ACTIVITY} is {ahead:.0f} s ahead of this host's clock",
            "Synchronize the clocks of this host and of the brokers.", may_pass=True,
        )  # fmt: skip
    else:
        yield Finding("ok", "clock", "no record is ahead of this host's clock")


def _text_findings(settings: Settings) -> Iterator[Finding]:
    """Whether the newest title has the encoder of the settings, and no `premiere reembed` was interrupted."""
    try:
        space = TitleEmbedder(load_encoder(settings.text_encoder), VectorSpace.parse(settings.title_vectors)).space
        check_encoder(newest_title_record(settings.kafka_config()), space)
    except OtherEncoderError as error:
        yield Finding("error", "titles", str(error))
    except (EncoderError, StreamError):  # reported with the host, and with the topics
        return
    else:
        yield Finding("ok", "titles", f"there is none, or the newest is embedded by {space.encoder}")


def _newest_records(config: Mapping[str, str], topic: str) -> Iterator[Message]:
    """The last records of a topic with one partition. Raises StreamError."""
    topic_partitions(config, topic)  # raises TopicMissingError
    with closing(Consumer(consumer_config(config, "premiere-doctor", topic))) as consumer:
        try:
            partition = TopicPartition(topic_name(config, topic), 0)
            low, high = consumer.get_watermark_offsets(partition, timeout=ADMIN_TIMEOUT_S)
        except KafkaException as error:
            raise StreamError(f"The offsets of {topic} are unknown: {error.args[0].str()}.") from error
    yield from read_all(config, topic, {0: max(low, high - TAIL_RECORDS)})
