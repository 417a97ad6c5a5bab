"""Helpers for end-to-end benchmarks: a warmed-up system, events at a fixed rate, and a client that measures latency.

The probe sends records and measures when a plain Kafka consumer of the same topic sees them, and when a reader of Redis
sees their effect. The first is the latency of Kafka alone, the second the end-to-end latency that a client observes.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import redis
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from infra.data.datasets import DataError, Dataset
from infra.data.producer import DatasetProducer, ProduceRate
from infra.local.session import Session, run_session
from infra.monitor.status import processed_events
from infra.settings import Settings
from streaming.kafka.client import client_config, topic_name
from streaming.records import Event, Launch, to_json
from streaming.stores.list_client import key, launch_channel, parse_revision
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

MAX_WAIT_S: Final = 60.0  # for the effects of the last records
MIN_READ_PAUSE_S: Final = 0.005
READ_PAUSE_FACTOR: Final = 4  # pause after a read, as a multiple of its duration, so that the reader uses little CPU
CONSUMER_START_S: Final = 1.0  # until the consumer is at the end of the topic
_PRODUCER_CONFIG: Final[dict[str, Any]] = {"linger.ms": 0, "partitioner": "murmur2_random", "log_level": 2}


class LatencyProbe:
    """Sends records and measures their latencies in seconds, through Kafka alone and up to Redis.

    Probing uses CPU on the measured machine. At high rates, probe only every `probe_every`-th event and leave out the
    Kafka consumer.
    """

    def __init__(self, session: Session, probe_every: int = 1, measure_kafka: bool = True) -> None:
        self.kafka_config, self.namespace = session.settings.kafka_config(), session.settings.namespace
        self.events, self.launches = (topic_name(self.kafka_config, name) for name in (USER_EVENTS, TITLE_LAUNCHES))
        self.redis: Any = redis.Redis.from_url(session.settings.require_redis_url(), decode_responses=True)
        self.producer = Producer({**client_config(self.kafka_config), **_PRODUCER_CONFIG})
        self.probe_every, self.events_sent = probe_every, 0
        self.sent_at: dict[tuple[int, int], float] = {}  # (partition, offset) -> time sent
        self.pending_events: deque[tuple[str, int, float]] = deque()  # user, offset, time sent
        self.pending_launches: dict[str, float] = {}  # title -> time sent
        self.event_latencies: list[float] = []
        self.launch_latencies: list[float] = []
        self.kafka_latencies: list[float] = []
        self._stop = threading.Event()
        targets = (self._read_lists, self._listen_for_launches, *([self._consume] if measure_kafka else []))
        self._threads = [threading.Thread(target=target) for target in targets]
        for thread in self._threads:
            thread.start()
        time.sleep(CONSUMER_START_S)

    def send_event(self, event: Event) -> None:
        """Send an event."""
        now = time.time()

        def on_delivery(_: object, message: Any) -> None:
            self.sent_at[message.partition(), message.offset()] = now
            self.pending_events.append((event.user, message.offset(), now))

        callback = on_delivery if self.events_sent % self.probe_every == 0 else None
        self.producer.produce(self.events, key=event.user.encode(), value=to_json(event), on_delivery=callback)
        self.producer.poll(0)
        self.events_sent += 1

    def send_launch(self, launch: Launch) -> None:
        """Send a launch."""
        self.pending_launches[launch.title] = time.time()
        self.producer.produce(self.launches, key=launch.title.encode(), value=to_json(launch))
        self.producer.poll(0)

    def finish(self) -> None:
        """Wait until all effects are measured, at most `MAX_WAIT_S`; then stop."""
        self.producer.flush(10)
        give_up = time.monotonic() + MAX_WAIT_S
        probed = -(-self.events_sent // self.probe_every)
        while (len(self.event_latencies) < probed or self.pending_launches) and time.monotonic() < give_up:
            time.sleep(0.05)
        self.close()

    def close(self) -> None:
        """Stop measuring."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _consume(self) -> None:
        consumer = Consumer({**client_config(self.kafka_config), "group.id": "benchmark", "fetch.wait.max.ms": 10})
        partitions = consumer.list_topics(self.events, timeout=10).topics[self.events].partitions
        consumer.assign([TopicPartition(self.events, partition, OFFSET_END) for partition in partitions])
        while not self._stop.is_set():
            for message in consumer.consume(100, 0.05):
                position = int(message.partition() or 0), int(message.offset() or 0)
                if message.error() is None and (sent := self.sent_at.get(position)) is not None:
                    self.kafka_latencies.append(time.time() - sent)
        consumer.close()

    def _read_lists(self) -> None:
        """Poll the revisions of pending users. A revision at or above the event's offset includes the event."""
        while not self._stop.is_set():
            pending, began = [self.pending_events.popleft() for _ in range(len(self.pending_events))], time.monotonic()
            with self.redis.pipeline(transaction=False) as pipeline:
                for user, _, _ in pending:
                    pipeline.hget(key(user, self.namespace), "revision")
                revisions = pipeline.execute() if pending else []
            now = time.time()
            for (user, offset, sent), revision in zip(pending, revisions, strict=True):
                if revision is not None and parse_revision(revision).event_offset >= offset:
                    self.event_latencies.append(now - sent)
                else:
                    self.pending_events.append((user, offset, sent))
            time.sleep(max(MIN_READ_PAUSE_S, READ_PAUSE_FACTOR * (time.monotonic() - began)))

    def _listen_for_launches(self) -> None:
        """The latency of a launch ends at the first list that the title enters."""
        with self.redis.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(launch_channel(self.namespace))
            while not self._stop.is_set():
                message = channel.get_message(timeout=0.05)
                entry = json.loads(message["data"]) if message else {}
                if entry.get("positions") and (sent := self.pending_launches.pop(entry["title"], None)) is not None:
                    self.launch_latencies.append(time.time() - sent)


@contextmanager
def warm_session(settings: Settings, data: Dataset, history: int) -> Iterator[Session]:
    """The running system after it has learned the first `history` events and written lists."""
    with run_session(settings) as session, DatasetProducer(data, session.settings.kafka_config()) as producer:
        producer.launch_ahead()
        in_flight = ProduceRate(in_flight=lambda: producer.events - processed_events(session.settings))
        producer.produce(until=history, pace=in_flight)
        while not session.redis.exists(key(None)) or processed_events(session.settings) < history:
            session.flows.check()
            time.sleep(0.2)
        print(f"warmed up: {history} events learned, lists written", flush=True)
        yield session


def last_events(data: Dataset, count: int) -> Dataset:
    """The last `count` events. Raises DataError if there are fewer."""
    if len(data) < count:
        raise DataError(
            f"{data.name} has {len(data):,} events, not {count:,}: lower the rate, the duration or --history."
        )
    return data.slice(len(data) - count)


def paced_events(data: Dataset, first: int, rate: float) -> Iterator[Event]:
    """The events from index `first` on, each when it is due at `rate` events/s; late events follow without a pause."""
    began = time.monotonic()
    for k in range(first, len(data)):
        time.sleep(max(0.0, began + (k - first) / rate - time.monotonic()))
        yield data.event(k)


def percentiles(values: list[float]) -> dict[int, float]:
    """p50, p95 and p99; NaN without values."""
    ordered = sorted(values) or [float("nan")]
    return {p: ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in (50, 95, 99)}
