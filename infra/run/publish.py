"""Builds the flow `publish` from the settings: fills its caches from the topics and connects sources and sink."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from fsspec.core import url_to_fs

from infra.errors import TopicError
from infra.learner_settings import learner_settings, set_threads
from infra.monitor.lag import retry_during_election
from infra.run.flow import Flow
from infra.run.peer_offsets import PUBLISH_GROUP, MinOffset, PeerOffsets, worker_group_id
from infra.run.workers import SINGLE_WORKER, Worker
from infra.settings import Settings
from infra.topics import log_identity, partition_counts
from streaming import phase
from streaming import topics as t
from streaming.kafka.client import consumer_config, topic_name
from streaming.kafka.commit_position import CommitPosition
from streaming.kafka.ownership import SOLE_PROCESS, Owner
from streaming.kafka.source import POLL_INTERVAL_S, KafkaSource, Message

if TYPE_CHECKING:
    from model.recommender import Recommender
    from streaming.records import Title
    from streaming.state.publish_settings import PublishSettings

log = logging.getLogger(__name__)

IDLE_INTERVAL: Final = timedelta(milliseconds=200)  # without records, after which the flow is activated nevertheless
POLL_RECORDS: Final = 256  # limits how long a poll delays the next batch of lists
BROKER_TIMEOUT_S: Final = 15.0  # per request to the broker


def publish(
    settings: Settings, stop: threading.Event, worker: Worker = SINGLE_WORKER, owner: Owner = SOLE_PROCESS
) -> Flow:
    """Build the flow. A worker keeps the caches and writes the lists of its shard of the users."""
    from model.warm_up import warm_up_serving
    from streaming.flows.publish import build, restore
    from streaming.state.publisher import Publisher
    from streaming.state.sharding import Shard
    from streaming.stores.redis_lists import RedisSink

    set_threads(settings.threads)
    config, model = settings.kafka_config(), learner_settings(settings)
    with phase.compiling():
        warm_up_serving(model)
    publisher = Publisher(publish_settings(settings), Shard(worker.index, worker.count))
    max_records = {t.TITLES: None, t.ACTIVITY: settings.publish_warmup_records, t.MODEL_VERSIONS: None}
    starts = {topic: start_offset(config, topic, limit, worker) for topic, limit in max_records.items()}
    backlog = {topic: _Backlog(config, topic, start, stop) for topic, start in starts.items()}
    announced = restore(publisher, backlog[t.TITLES], backlog[t.ACTIVITY], backlog[t.MODEL_VERSIONS])
    log.info("The caches hold %d users and %d titles.", len(publisher.users), len(publisher.titles.titles))
    kinds = {"activity": t.ACTIVITY, "titles": t.TITLES, "versions": t.MODEL_VERSIONS}
    # The records that `restore` read count as done: a restart reads them again and recomputes all lists.
    commit_positions = {kind: CommitPosition({0: backlog[topic].next}) for kind, topic in kinds.items()}
    peers = PeerOffsets(config, list(kinds.values()), worker.count if worker.index == 0 else 1, stop)

    def source(kind: str) -> KafkaSource:
        topic, group = kinds[kind], worker_group_id(worker)
        start, position = {0: backlog[topic].next}, MinOffset(commit_positions[kind], peers, topic)
        return KafkaSource(
            config, topic, group, start=start, idle=IDLE_INTERVAL, batch=POLL_RECORDS, stop=stop, position=position
        )

    sources = [source(kind) for kind in kinds]
    logs = log_identity(config, [t.USER_EVENTS, t.TITLE_LAUNCHES, t.MODEL_VERSIONS])
    ttl, url = timedelta(days=settings.list_ttl_days), settings.require_redis_url()
    lists = RedisSink(url, log_identity=logs, ttl=ttl, stop=stop, namespace=settings.namespace, owner=owner)
    dataflow = build(
        activity=sources[0],
        titles=sources[1],
        versions=sources[2],
        lists=lists,
        publisher=publisher,
        load=partial(_load_recommender, settings.checkpoints_url()),
        clock=time.time,
        announced=announced,
        commit_positions=commit_positions,
    )
    return Flow(dataflow, sources)


def _load_recommender(checkpoints: str, url: str, titles: "Sequence[Title]") -> "Recommender":
    """Load a model version below the URL `checkpoints`, and add titles that it does not know yet."""
    from model.checkpoint import CheckpointError
    from model.recommender import Recommender
    from streaming.state.title_metadata import title_metadata

    if not is_below(url, checkpoints):
        raise CheckpointError(
            f"Its path {url} is not below the checkpoint folder {checkpoints}: give learn and publish the same "
            "PREMIERE_CHECKPOINTS, or find out who else writes to the topic model-versions."
        )
    recommender = Recommender.load(url)
    recommender.update_titles([title_metadata(title, recommender.text_space) for title in titles])
    return recommender


def is_below(url: str, folder: str) -> bool:
    """Whether an fsspec URL names a path below a folder; "..", links and chained URLs cannot lead out of it."""
    protocol, *parts = _parts(url)
    folder_protocol, *folder_parts = _parts(folder)
    return (
        protocol == folder_protocol
        and url.count("::") == folder.count("::")
        and ".." not in parts
        and len(parts) > len(folder_parts)
        and parts[: len(folder_parts)] == folder_parts
    )


def _parts(url: str) -> list[str]:
    """The protocol and the parts of the path of an fsspec URL; a local path is made absolute, without links."""
    protocol, _, path = url.rpartition("://")
    if protocol in ("", "file", "local") and "::" not in url:
        protocol, path = "file", os.path.realpath(str(url_to_fs(url)[1]))
    return [protocol, *(part for part in path.split("/") if part not in ("", "."))]


def publish_settings(settings: Settings) -> "PublishSettings":
    """The publisher's settings for the operator's settings."""
    from streaming.state.publish_settings import PublishSettings

    return PublishSettings(
        list_size=settings.list_size,
        new_title_slots=min(settings.new_title_slots, settings.list_size // 2),
        filter_seen=settings.filter_seen,
        max_users=settings.publish_users,
        max_titles=settings.max_titles,
        launch_fanout=settings.launch_fanout_users,
        refresh_budget=settings.refresh_budget_users_per_second,
    )


class _Backlog:
    """The records of a one-partition topic from `start` to its current end; afterwards `next` is the next offset."""

    def __init__(self, config: Mapping[str, str], topic: str, start: int, stop: threading.Event) -> None:
        self.source = KafkaSource(config, topic, "publish", start={0: start}, tail=False, stop=stop)
        self.next, self.stop = start, stop

    def __iter__(self) -> Iterator[Message]:
        partition = self.source.build_part("backlog", "0", None)
        try:
            while True:
                for poll in partition.next_batch():
                    yield from poll
                    self.next = poll[-1].offset + 1 if poll else self.next
                if partition.next_awake() is not None:
                    self.stop.wait(POLL_INTERVAL_S)
        except StopIteration:
            return
        finally:
            partition.close()


def start_offset(config: Mapping[str, str], topic: str, limit: int | None, worker: Worker) -> int:
    """The offset from which a worker fills its caches; without a `limit` it is the start of the topic.

    With a `limit` it covers the last `limit` records, and all records after the committed offset because these may
    contain erasure requests. A new worker has no committed offset; then the offset of the group `publish` is used.
    Tansu reports an end offset that is up to one batch too low.
    """
    partition_counts(config)  # raises the error of an unreachable broker or a refused login
    partition, committed = TopicPartition(topic_name(config, topic), 0), -1
    try:
        for name in dict.fromkeys((worker_group_id(worker), PUBLISH_GROUP)):
            with closing(Consumer(consumer_config(config, name))) as consumer:
                low, high = retry_during_election(
                    lambda: consumer.get_watermark_offsets(partition, timeout=BROKER_TIMEOUT_S)
                )
                offsets = retry_during_election(lambda: consumer.committed([partition], timeout=BROKER_TIMEOUT_S))
                committed = offsets[0].offset
            if committed >= 0:
                break
    except KafkaException as error:
        raise TopicError(f"Kafka did not return the offsets of {topic}: {error.args[0].str()}.") from error
    if limit is None:
        return int(low)
    return int(max(low, min(high - limit, committed if committed >= 0 else high)))
