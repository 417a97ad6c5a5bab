"""What benchmarks of the whole loop share: a loop that learned a history, events at their times, and a client's eye.

A probe sends records and notes when a plain consumer of the same topic and a reader of Redis see them: the first is
what Kafka takes alone, the second what a client waits for.
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

from infra.data.datasets import DataError, DataSet
from infra.data.producer import DatasetProducer, ProduceRate
from infra.local.session import Session, running
from infra.monitor.status import accounted
from infra.settings import Settings
from streaming.records import Event, Launch, to_json
from streaming.stores.redis_lists import LAUNCHES, key
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

PATIENCE: Final = 60.0  # seconds to wait for what was sent last
IDLE: Final = 4  # times as long as it looked does a reader rest: where much waits, it must not take the processor
_PRODUCER: Final[dict[str, Any]] = {"linger.ms": 0, "partitioner": "murmur2_random", "log_level": 2}


class Probe:
    """Sends records and notes when a plain consumer and a reader of Redis see each; times in seconds.

    Looking costs the machine that is measured: at high rates every `every`-th event is looked for, and `plain` can be
    left out.
    """

    def __init__(self, loop: Session, every: int = 1, plain: bool = True) -> None:
        self.config = loop.settings.kafka()
        self.redis: Any = redis.Redis.from_url(loop.settings.redis(), decode_responses=True)
        self.producer = Producer({**self.config, **_PRODUCER})
        self.every, self.events = every, 0  # events sent
        self.sent: dict[tuple[int, int], float] = {}  # by partition and offset
        self.waiting: deque[tuple[str, int, float]] = deque()  # user, offset, when sent
        self.launched: dict[str, float] = {}
        self.event: list[float] = []
        self.launch: list[float] = []
        self.kafka: list[float] = []
        self.done = threading.Event()
        looks = (self._read, self._listen, *([self._consume] if plain else []))
        self.threads = [threading.Thread(target=work) for work in looks]
        for thread in self.threads:
            thread.start()
        time.sleep(1)  # the consumer stands at the end before the first record

    def act(self, event: Event) -> None:
        """Send an event."""
        at = time.time()

        def delivered(_: object, message: Any) -> None:
            self.sent[message.partition(), message.offset()] = at
            self.waiting.append((event.user, message.offset(), at))

        told = delivered if self.events % self.every == 0 else None
        self.producer.produce(USER_EVENTS, key=event.user.encode(), value=to_json(event), on_delivery=told)
        self.producer.poll(0)
        self.events += 1

    def release(self, launch: Launch) -> None:
        """Send a launch."""
        self.launched[launch.title] = time.time()
        self.producer.produce(TITLE_LAUNCHES, key=launch.title.encode(), value=to_json(launch))
        self.producer.poll(0)

    def finish(self) -> None:
        """Wait, within bounds, until all is seen; then stop looking."""
        self.producer.flush(10)
        give_up = time.monotonic() + PATIENCE
        watched = -(-self.events // self.every)
        while (len(self.event) < watched or self.launched) and time.monotonic() < give_up:
            time.sleep(0.05)
        self.close()

    def close(self) -> None:
        """Stop looking."""
        self.done.set()
        for thread in self.threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _consume(self) -> None:
        consumer = Consumer({**self.config, "group.id": "benchmark", "fetch.wait.max.ms": 10})
        partitions = consumer.list_topics(USER_EVENTS, timeout=10).topics[USER_EVENTS].partitions
        consumer.assign([TopicPartition(USER_EVENTS, partition, OFFSET_END) for partition in partitions])
        while not self.done.is_set():
            for message in consumer.consume(100, 0.05):
                where = int(message.partition() or 0), int(message.offset() or 0)
                if message.error() is None and (at := self.sent.get(where)) is not None:
                    self.kafka.append(time.time() - at)
        consumer.close()

    def _read(self) -> None:
        while not self.done.is_set():
            looked, began = [self.waiting.popleft() for _ in range(len(self.waiting))], time.monotonic()
            with self.redis.pipeline(transaction=False) as pipe:
                for user, _, _ in looked:
                    pipe.hget(key(user), "revision")
                found = pipe.execute() if looked else []
            now = time.time()
            for (user, offset, at), revision in zip(looked, found, strict=True):
                if revision is not None and int(revision.split(".")[0]) >= offset:
                    self.event.append(now - at)
                else:
                    self.waiting.append((user, offset, at))
            time.sleep(max(0.005, IDLE * (time.monotonic() - began)))

    def _listen(self) -> None:
        with self.redis.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(LAUNCHES)
            while not self.done.is_set():
                message = channel.get_message(timeout=0.05)
                told = json.loads(message["data"]) if message else {}
                if told.get("places") and (at := self.launched.pop(told["title"], None)) is not None:
                    self.launch.append(time.time() - at)


@contextmanager
def warmed(settings: Settings, data: DataSet, history: int) -> Iterator[Session]:
    """The loop with the first `history` events learned and lists written, while the context lasts."""
    with running(settings) as loop, DatasetProducer(data, loop.settings.kafka()) as replay:
        replay.launch_ahead()
        replay.play(until=history, pace=ProduceRate(in_flight=lambda: replay.events - accounted(loop.settings)))
        while not loop.redis.exists(key(None)) or accounted(loop.settings) < history:
            loop.flows.check()
            time.sleep(0.2)
        print(f"warm: {history} events learned, lists written", flush=True)
        yield loop


def last(data: DataSet, events: int) -> DataSet:
    """The last so many events. Raises DataError where there are fewer."""
    if len(data) < events:
        raise DataError(f"{data.name} holds {len(data):,} events and {events:,} are wanted: ask for less time.")
    return data.slice(len(data) - events)


def paced(data: DataSet, first: int, rate: float) -> Iterator[Event]:
    """The events from `first` on, so many a second, each at its time; what is late comes at once."""
    began = time.monotonic()
    for k in range(first, len(data)):
        time.sleep(max(0.0, began + (k - first) / rate - time.monotonic()))
        yield data.event(k)


def quantiles(values: list[float]) -> dict[int, float]:
    """p50, p95 and p99."""
    ordered = sorted(values) or [float("nan")]
    return {share: ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] for share in (50, 95, 99)}
