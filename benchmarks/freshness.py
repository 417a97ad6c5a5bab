"""Seconds from an event, or a launch, to its effect in Redis, as a client sees it, with everything on this machine.

The loop is warmed with a history first. Then events come at a stated rate, and launches in between; a reader looks at
the written keys all the while. The reference in the same run is Kafka alone: the same record, from its producer to a
plain consumer of the same topic.

    python -m benchmarks.freshness --rate 100 --seconds 60
"""

import argparse
import json
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from benchmarks.runner import Row, publish, row
from infra.datasets import DataSet
from infra.find import find
from infra.loop import Loop, running
from infra.replay import Pace, Replay
from infra.settings import Settings, load
from infra.status import accounted
from streaming.predictions import LAUNCHES, key
from streaming.records import Launch, to_json
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

PATIENCE = 60.0  # seconds to wait for what was sent last
EVERY = 2.0  # seconds between two launches


class Probe:
    """Sends records and notes when a plain consumer and a reader of Redis see each; times in seconds."""

    def __init__(self, loop: Loop) -> None:
        self.config = loop.settings.kafka()
        self.redis: Any = redis.Redis.from_url(loop.settings.redis(), decode_responses=True)
        self.producer = Producer({**self.config, "linger.ms": 0, "partitioner": "murmur2_random"})
        self.sent: dict[tuple[int, int], float] = {}  # by partition and offset
        self.waiting: deque[tuple[str, int, float]] = deque()  # user, offset, when sent
        self.launched: dict[str, float] = {}
        self.event: list[float] = []
        self.launch: list[float] = []
        self.kafka: list[float] = []
        self.done = threading.Event()
        self.threads = [threading.Thread(target=work) for work in (self._consume, self._read, self._listen)]
        for thread in self.threads:
            thread.start()
        time.sleep(1)  # the consumer stands at the end before the first record

    def act(self, user: str, value: bytes) -> None:
        """Send an event."""
        at = time.time()

        def delivered(_: object, message: Any) -> None:
            self.sent[message.partition(), message.offset()] = at
            self.waiting.append((user, message.offset(), at))

        self.producer.produce(USER_EVENTS, key=user.encode(), value=value, on_delivery=delivered)
        self.producer.poll(0)

    def release(self, launch: Launch) -> None:
        """Send a launch."""
        self.launched[launch.title] = time.time()
        self.producer.produce(TITLE_LAUNCHES, key=launch.title.encode(), value=to_json(launch))
        self.producer.poll(0)

    def finish(self, events: int) -> None:
        """Wait, within bounds, until all is seen; then stop looking."""
        self.producer.flush(10)
        give_up = time.monotonic() + PATIENCE
        while (len(self.event) < events or self.launched) and time.monotonic() < give_up:
            time.sleep(0.05)
        self.done.set()
        for thread in self.threads:
            thread.join()

    def _consume(self) -> None:
        consumer = Consumer({**self.config, "group.id": "benchmark", "fetch.wait.max.ms": 10})
        partitions = consumer.list_topics(USER_EVENTS, timeout=10).topics[USER_EVENTS].partitions
        consumer.assign([TopicPartition(USER_EVENTS, partition, OFFSET_END) for partition in partitions])
        while not self.done.is_set():
            for message in consumer.consume(100, 0.05):
                at = self.sent.get((message.partition(), message.offset())) if message.error() is None else None
                if at is not None:
                    self.kafka.append(time.time() - at)
        consumer.close()

    def _read(self) -> None:
        while not self.done.is_set():
            looked = [self.waiting.popleft() for _ in range(len(self.waiting))]
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
            time.sleep(0.005)

    def _listen(self) -> None:
        with self.redis.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(LAUNCHES)
            while not self.done.is_set():
                message = channel.get_message(timeout=0.05)
                told = json.loads(message["data"]) if message else {}
                if told.get("places") and (at := self.launched.pop(told["title"], None)) is not None:
                    self.launch.append(time.time() - at)


def measure(settings: Settings, data: DataSet, history: int, rate: float, seconds: float) -> Probe:
    """Warm the loop with `history` events, then send at `rate` for `seconds`."""
    live = int(rate * seconds)
    part = data.slice(len(data) - history - live)
    with running(settings) as loop, Replay(part, loop.settings.kafka()) as replay:
        replay.launch_ahead()
        replay.play(until=history, pace=Pace(in_flight=lambda: replay.events - accounted(loop.settings)))
        while not loop.redis.exists(key(None)) or accounted(loop.settings) < history:
            loop.flows.check()
            time.sleep(0.2)
        print(f"warm: {history} events learned, lists written; now {rate:g} events/s for {seconds:g} s", flush=True)
        probe, began, released = Probe(loop), time.monotonic(), 0
        for k in range(history, history + live):
            time.sleep(max(0.0, began + (k - history) / rate - time.monotonic()))
            event = part.event(k)
            probe.act(event.user, to_json(event))
            if time.monotonic() - began > EVERY * (released + 1):
                like = part.launches[-1 - released]
                told = {"name": like.name, "genres": like.genres, "overview": like.overview}
                probe.release(Launch(title=f"new-{released}", **told))
                released += 1
        probe.finish(live)
        return probe


def rows(case: str, probe: Probe) -> list[Row]:
    """Percentiles, and their ratio to Kafka's own."""
    found = []
    base = quantiles(probe.kafka)
    found_by = {"kafka alone": probe.kafka, "event to redis": probe.event, "launch to list": probe.launch}
    for name, values in found_by.items():
        for share, value in quantiles(values).items():
            found.append(row(case, f"{name} p{share}", [value * 1000], "ms", value / base[share]))
    return found


def quantiles(values: list[float]) -> dict[int, float]:
    """p50, p95 and p99."""
    ordered = sorted(values) or [float("nan")]
    return {share: ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] for share in (50, 95, 99)}


def main() -> None:
    """Run and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=float, default=100, help="events/s")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--history", type=int, default=5000, help="events learned first")
    parser.add_argument("--quick", action="store_true", help="10 s after 1,000 events")
    given = parser.parse_args()
    if given.quick:
        given.seconds, given.history = 10.0, 1000
    with tempfile.TemporaryDirectory() as folder:
        settings = load(data_dir=Path(folder))
        data = find(None, None, (), checkout=Path.cwd(), data_dir=Path(".premiere"), folder=settings.data)
        probe = measure(settings, data, given.history, given.rate, given.seconds)
    unseen = f"{len(probe.waiting)} and {len(probe.launched)}"
    print(f"{len(probe.event)} events and {len(probe.launch)} launches seen, {unseen} not")
    publish("freshness", rows(f"{data.name}, {given.rate:g} events/s", probe))


if __name__ == "__main__":
    main()
