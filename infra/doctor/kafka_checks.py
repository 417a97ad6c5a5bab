"""Checks of the broker: reachable, permissions, topics with their partitions, retention and record times, the clock."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from infra.doctor.findings import Finding
from infra.errors import TopicError
from infra.settings import Settings
from infra.topics import ADMIN_TIMEOUT_S, TIMESTAMP_TYPE, partition_counts
from streaming.errors import StreamError
from streaming.kafka.client import client_config, topic_name
from streaming.kafka.source import read_all
from streaming.topics import ACTIVITY, topics

PART: Final = "kafka"
RETENTION: Final = "retention.ms"
MAX_CLOCK_DIFFERENCE_S: Final = 60.0


def kafka_findings(settings: Settings) -> Iterator[Finding]:
    """All checks that need the broker."""
    config = settings.kafka_config()
    try:
        counts = partition_counts(config)
    except TopicError as error:
        yield Finding("error", PART, str(error))
        return
    yield Finding("ok", PART, f"{settings.bootstrap_servers} answers")
    yield from _topic_findings(settings, counts)
    yield from _setting_findings(config, counts)
    yield from _read_findings(config, counts)


def _topic_findings(settings: Settings, counts: Mapping[str, int]) -> Iterator[Finding]:
    wanted = {topic.name: topic.partitions for topic in topics(settings.event_partitions)}
    if missing := sorted(set(wanted) - set(counts)):
        yield Finding("error", PART, f"missing topics: {', '.join(missing)}", "Run `premiere topics --create`.")
    for name in sorted(set(wanted) & set(counts)):
        if counts[name] != wanted[name]:
            yield Finding(
                "error", PART, f"{name} has {counts[name]} partitions instead of {wanted[name]}",
                f"Set PREMIERE_EVENT_PARTITIONS={counts[name]}, or use topics of another prefix.",
            )  # fmt: skip
    if not missing:
        yield Finding("ok", PART, f"all {len(wanted)} topics exist")


def _setting_findings(config: Mapping[str, str], counts: Mapping[str, int]) -> Iterator[Finding]:
    """The topics' settings against those with which `premiere topics --create` makes them."""
    admin = AdminClient(client_config(config))
    wanted = {topic_name(config, topic.name): topic for topic in topics() if topic.name in counts}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in wanted]
    answers = admin.describe_configs(resources, request_timeout=ADMIN_TIMEOUT_S) if resources else {}
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
        for name, value in topic.config.items():
            entry = found.get(name)
            if entry is None or entry.value == value:
                continue
            differing += 1
            shorter = name == RETENTION and 0 <= int(entry.value) < int(value)
            level, harm = ("error", "producers could set record times") if name == TIMESTAMP_TYPE else (
                "warning", "records may be deleted before they are read" if shorter else "this is not the default"
            )  # fmt: skip
            yield Finding(
                level, PART, f"{topic.name} has {name}={entry.value}, not {value}: {harm}",  # type: ignore[arg-type]
                f"Run `kafka-configs.sh --alter --entity-type topics --entity-name {resource.name} --add-config "
                f"{name}={value}`.",
            )  # fmt: skip
    if not differing:
        yield Finding("ok", PART, "the topics have the recommended settings")


def _read_findings(config: Mapping[str, str], counts: Mapping[str, int]) -> Iterator[Finding]:
    """Whether the learner log can be read, and whether the clocks of its records and of this host agree."""
    if ACTIVITY not in counts:
        return
    newest = 0
    try:
        for message in read_all(config, ACTIVITY):
            newest = message.appended
    except StreamError as error:
        yield Finding("error", PART, str(error), "docs/security.md lists the permissions of each flow.")
        return
    ahead = newest / 1000 - time.time()
    if ahead > MAX_CLOCK_DIFFERENCE_S:
        yield Finding(
            "error", "clock", f"the newest record of {ACTIVITY} is {ahead:.0f} s ahead of this host's clock",
            "Synchronize the clocks of this host and of the brokers.",
        )  # fmt: skip
    else:
        yield Finding("ok", "clock", "no record is ahead of this host's clock")
