"""The flow `publish` from the settings: what it reads before it starts, and what it writes with."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from infra.errors import TopicError
from infra.monitor.lag import patient
from infra.run.flow import Flow
from infra.run.peer_offsets import GROUP, MinOffset, PeerOffsets, group
from infra.run.workers import ALONE, Worker
from infra.settings import Settings
from infra.topics import identity, partitions
from streaming import topics as t
from streaming.kafka.client import consuming
from streaming.kafka.source import NAP, KafkaSource, Message

if TYPE_CHECKING:
    from model.recommender import Recommender
    from streaming.records import Title
    from streaming.state.publisher import PublishSettings

log = logging.getLogger(__name__)

IDLE: Final = timedelta(milliseconds=200)  # of silence, after which the flow is woken all the same
POLL: Final = 256  # records of the log: bounds what one slice of work waits for
TIMEOUT: Final = 15.0  # seconds for the broker to tell a topic's end


def publish(settings: Settings, stop: threading.Event, worker: Worker = ALONE) -> Flow:
    """Caches from the topics, lists from the newest version on; of a worker, those of its share of the viewers."""
    from infra.run.learn import learner_settings, numerics
    from model.recommender import Recommender, warm_up
    from streaming.flows.publish import build, restore
    from streaming.state.log_learner import title_metadata
    from streaming.state.publisher import Publisher
    from streaming.state.sharding import Shard
    from streaming.stores.redis_lists import RedisSink

    numerics(settings.threads)
    config, model = settings.kafka(), learner_settings(settings)
    warm_up(model)
    publisher = Publisher(publish_settings(settings), Shard(worker.index, worker.count))
    tails = {t.TITLES: None, t.ACTIVITY: settings.publish_tail, t.MODEL_VERSIONS: None}
    starts = {topic: first(config, topic, most, worker) for topic, most in tails.items()}
    history = {topic: _Past(config, topic, start, stop) for topic, start in starts.items()}
    announced = restore(publisher, history[t.TITLES], history[t.ACTIVITY], history[t.MODEL_VERSIONS])
    log.info("%d viewers and %d titles are known", len(publisher.viewers), len(publisher.titles.known))
    kinds = {"activity": t.ACTIVITY, "titles": t.TITLES, "versions": t.MODEL_VERSIONS}
    # What `restore` took is durable: a restart takes it again, and makes everybody's lists anew.
    durable = {kind: {0: history[topic].next} for kind, topic in kinds.items()}
    others = PeerOffsets(config, list(kinds.values()), worker.count if worker.index == 0 else 1, stop)

    def source(kind: str) -> KafkaSource:
        topic = kinds[kind]
        start, shown = {0: history[topic].next}, MinOffset(durable[kind], others, topic)
        return KafkaSource(config, topic, group(worker), start=start, idle=IDLE, batch=POLL, stop=stop, durable=shown)

    def load(url: str, ahead: "Sequence[Title]") -> "Recommender":
        recommender = Recommender.load(url, model)
        recommender.add([title_metadata(title) for title in ahead])
        return recommender

    sources = [source(kind) for kind in kinds]
    logs = identity(config, [t.USER_EVENTS, t.TITLE_LAUNCHES, t.MODEL_VERSIONS])
    ttl = timedelta(days=settings.redis_ttl_days)
    dataflow = build(
        activity=sources[0],
        titles=sources[1],
        versions=sources[2],
        predictions=RedisSink(settings.redis(), identity=logs, ttl=ttl, stop=stop),
        publisher=publisher,
        load=load,
        clock=time.time,
        announced=announced,
        durable=durable,
    )
    return Flow(dataflow, sources)


def publish_settings(settings: Settings) -> "PublishSettings":
    """What the settings say of the publisher."""
    from streaming.state.publisher import PublishSettings

    return PublishSettings(
        size=settings.list_size,
        kept=min(settings.launch_places, settings.list_size // 2),
        filter_seen=settings.filter_seen,
        users=settings.publish_users,
        asked=settings.launch_users,
        budget=settings.refresh_budget_users_per_second,
    )


class _Past:
    """A topic's only partition from `start` to its present end; then `next` is where to go on."""

    def __init__(self, config: Mapping[str, str], topic: str, start: int, stop: threading.Event) -> None:
        self.source = KafkaSource(config, topic, "publish", start={0: start}, tail=False, stop=stop)
        self.next, self.stop = start, stop

    def __iter__(self) -> Iterator[Message]:
        partition = self.source.build_part("past", "0", None)
        try:
            while True:
                for poll in partition.next_batch():
                    yield from poll
                    self.next = poll[-1].offset + 1 if poll else self.next
                if partition.next_awake() is not None:
                    self.stop.wait(NAP)
        except StopIteration:
            return
        finally:
            partition.close()


def first(config: Mapping[str, str], topic: str, most: int | None, worker: Worker) -> int:
    """The first offset of a topic, or of its last `most` records and of what has not been done yet, for somebody may
    have asked there to be forgotten: by this worker, or, where it is new, by all there were. Tansu tells an end that is
    up to a batch low."""
    partitions(config)  # tells a broker that is silent or refuses
    at, done = TopicPartition(topic, 0), -1
    try:
        for name in dict.fromkeys((group(worker), GROUP)):
            with closing(Consumer(consuming(config, name))) as consumer:
                low, high = patient(lambda: consumer.get_watermark_offsets(at, timeout=TIMEOUT))
                done = patient(lambda: consumer.committed([at], timeout=TIMEOUT))[0].offset
            if done >= 0:
                break
    except KafkaException as error:
        raise TopicError(f"Kafka does not tell the ends of {topic}: {error.args[0].str()}.") from error
    if most is None:
        return int(low)
    return int(max(low, min(high - most, done if done >= 0 else high)))
