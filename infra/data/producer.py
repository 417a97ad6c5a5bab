"""Produces a dataset into Kafka in event-time order, with checked delivery.

Launches are produced `ahead` events early, so that a title can be known before its first event. Event times stay those
of the data; the flows judge late and future times by Kafka's record time. Events are produced at a multiple of the
data's own pace, at a fixed rate, or as fast as the flows learn. A callback runs just before each event, for example to
read the user's list.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Producer

from infra.data.datasets import Dataset
from infra.data.offset_ranges import OffsetRanges
from infra.errors import PremiereError
from streaming.kafka.client import client_config, topic_name
from streaming.kafka.dead_letters import MAX_FUTURE
from streaming.kafka.reconnect import ReconnectingClient
from streaming.records import MAX_LAUNCH_BYTES, Event, to_json
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

_DELIVERY_TIMEOUT_S: Final = 30.0  # of one record
_MIN_POLL_S: Final = 0.005  # first interval between two checks of the events in flight
_MAX_POLL_S: Final = 0.2  # longest interval; also the delay of a stop
_PROGRESS_INTERVAL_S: Final = 0.25
_MAX_SHOWN_MS: Final = 253_402_300_799_000  # the last second of the year 9999
_PRODUCER_CONFIG: Final[dict[str, Any]] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 2,
    "compression.type": "lz4",
    "message.max.bytes": MAX_LAUNCH_BYTES + 4096,  # a record with its key and headers; the default is smaller
    "partitioner": "murmur2_random",  # the default of Kafka's Java clients
    "queue.buffering.max.messages": 20_000,
    "log_level": 2,  # errors are reported by this module
}


class ProduceError(PremiereError):
    """Producing cannot continue. The message names the cause and the remedy."""


class ProduceProgress(NamedTuple):
    """Progress so far."""

    events: int  # produced
    of: int
    launches: int  # produced
    ts: int  # event time reached, ms


@dataclass(frozen=True)
class ProduceRate:
    """How fast events are produced. `in_flight` is called only when more than `limit` events could be in flight."""

    speed: float | None = None  # multiple of the data's own pace
    rate: float | None = None  # events/s
    in_flight: Callable[[], int] | None = None  # produced events that are not yet learned; None: no limit
    limit: int = 1000  # events in flight
    timeout_s: float = 300.0  # how long `in_flight` may stay the same; a first start compiles for minutes under load

    def __post_init__(self) -> None:
        if self.speed is not None and self.rate is not None:
            raise ProduceError("Give a speed or a rate, not both.")
        if any(value is not None and not value > 0 for value in (self.speed, self.rate, self.limit, self.timeout_s)):
            raise ProduceError("Speed, rate, limit and patience must be above 0.")


class Delivery:
    """A Kafka producer that checks every delivery and keeps the offsets of the delivered records.

    Raises ProduceError after the broker has refused a record.
    """

    def __init__(self, config: Mapping[str, Any], timeout_s: float = _DELIVERY_TIMEOUT_S) -> None:
        self._kafka_config = config
        self._address, self._patience = config.get("bootstrap.servers"), timeout_s
        timeout = {"delivery.timeout.ms": round(timeout_s * 1000)}
        self._config: dict[str, Any] = {**timeout, **_PRODUCER_CONFIG, **client_config(config)}
        self._lost, self._reason = 0, ""
        self._offsets: dict[tuple[str, int], OffsetRanges] = {}  # by topic's full name and partition
        self._connection = ReconnectingClient(self._new_client)

    def _new_client(self, on_error: Callable[[KafkaError], None]) -> Producer:
        return Producer({**self._config, "on_delivery": self._on_delivery, "error_cb": on_error})

    @property
    def _producer(self) -> Producer:
        return self._connection.current

    def __len__(self) -> int:
        return len(self._producer)  # not yet delivered

    def send(self, topic: str, key: str, value: bytes) -> None:
        """Produce one record; waits while the queue is full."""
        self.check()
        if self._connection.may_be_stale and not len(self):
            self._connection.outage.end()  # everything was delivered
            self._connection.replace()
        give_up = time.monotonic() + self._patience
        while True:
            try:
                return self._producer.produce(topic_name(self._kafka_config, topic), key=key.encode(), value=value)
            except BufferError:
                self.check(0.05)
                if time.monotonic() > give_up:
                    raise self._error(len(self)) from None
            except KafkaException as error:
                self._reason = error.args[0].str()
                raise self._error(1) from error

    def offsets(self, topic: str) -> dict[int, OffsetRanges]:
        """The offsets of the records delivered to a topic, by partition."""
        name = topic_name(self._kafka_config, topic)
        return {partition: ranges for (full, partition), ranges in self._offsets.items() if full == name}

    def check(self, seconds: float = 0.0) -> None:
        """Process delivery reports."""
        self._producer.poll(seconds)
        if self._lost:
            raise self._error(self._lost)

    def flush(self) -> None:
        """Wait until all records are delivered."""
        left = self._producer.flush(self._patience + 1)
        if left or self._lost:
            raise self._error(left + self._lost)

    def close(self) -> None:
        """Drop queued records; after `flush` there are none."""
        self._producer.purge()
        self._producer.flush(1)

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._lost, self._reason = self._lost + 1, error.str()
        elif message.offset() >= 0:  # a broker that recognizes a repeated batch may not know its offset any more
            self._offsets.setdefault((message.topic(), message.partition()), OffsetRanges()).add(message.offset())

    def _error(self, lost: int) -> ProduceError:
        why = f" ({self._reason})" if self._reason else ""
        return ProduceError(f"Kafka at {self._address} did not accept {lost} records{why}: is it running?")


def check_not_ahead(data: Dataset, now: float) -> None:
    """Raise ProduceError if the flows would refuse events because they are later than now (Unix seconds)."""
    ahead = len(data) - int(data.ts.searchsorted((now + MAX_FUTURE.total_seconds()) * 1000, "right"))
    if ahead:
        last = time.strftime("%Y-%m-%d %H:%M", time.gmtime(min(int(data.ts[-1]), _MAX_SHOWN_MS) / 1000))
        raise ProduceError(
            f"{ahead:,} of {len(data):,} events are later than now, the last one at {last} UTC: the flows would refuse "
            "them, so nothing was sent. Shift the times in the file, or leave these events out."
        )


class DatasetProducer:
    """Produces a dataset in parts: `produce` the backlog, then the live part, then `close`."""

    def __init__(
        self,
        data: Dataset,
        config: Mapping[str, Any],
        *,
        ahead: int = 300,
        progress: Callable[[ProduceProgress], None] | None = None,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        user_events: str = USER_EVENTS,
        title_launches: str = TITLE_LAUNCHES,
    ) -> None:
        check_not_ahead(data, time.time())
        self.events = self.launches = 0  # produced so far
        self.data, self.ahead, self.stop = data, ahead, stop or threading.Event()
        self._delivery, self._user_events, self._title_launches = Delivery(config), user_events, title_launches
        self._progress, self._clock, self._reported = progress, clock, clock()
        self._last_in_flight, self._produced_since = 0, 0  # events in flight at the last check, events produced since

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def offsets(self) -> dict[str, dict[int, OffsetRanges]]:
        """The offsets of the delivered records, by the topic of events and of launches, and by partition."""
        return {topic: self._delivery.offsets(topic) for topic in (self._user_events, self._title_launches)}

    def close(self) -> None:
        """Close the Kafka producer."""
        self._delivery.close()

    def launch_ahead(self) -> int:
        """Produce the launches that are due and wait for delivery. Returns the launches so far.

        `produce` does this as it goes. Call it first to wait until the catalog is known.
        """
        self._produce_launches()
        self._delivery.flush()
        return self.launches

    def produce(
        self,
        until: int | None = None,
        pace: ProduceRate | None = None,
        before: Callable[[Event], object] | None = None,
        take: Callable[[], int | None] | None = None,
    ) -> int:
        """Produce events up to index `until`, or until `stop` is set; wait for delivery. Returns the events so far.

        `before` is called with each event just before it is produced. `take` chooses the next event: it returns its
        index, or None if no event may be produced yet. It may be at most `ahead` events early.
        """
        pace, end = pace or ProduceRate(), len(self.data) if until is None else min(until, len(self.data))
        first, began = self.events, self._clock()
        while self.events < end:
            self._produce_launches()
            self._wait_until(began + self._due_s(first, pace))
            self._wait_for_flows(pace)
            if self.stop.is_set():
                break
            index = self.events if take is None else take()
            if index is None:
                self._wait_until(self._clock() + _MIN_POLL_S)
                continue
            self._produce_event(self.data.event(index), before)
            self._report()
        self._delivery.flush()
        self._report(last=True)
        return self.events

    def _produce_event(self, event: Event, before: Callable[[Event], object] | None) -> None:
        if before:
            before(event)
        self._delivery.send(self._user_events, event.user, to_json(event))
        self.events += 1
        self._produced_since += 1

    def _produce_launches(self) -> None:
        """Produce the launches before the event `ahead` positions later; near the end, all that are left."""
        horizon = self.events + self.ahead
        due = len(self.data.launches)
        if horizon < len(self.data):
            due = int(self.data.launched.searchsorted(self.data.ts[horizon]))
        for launch in self.data.launches[self.launches : due]:
            self._delivery.send(self._title_launches, launch.title, to_json(launch))
            self.launches += 1

    def _due_s(self, first: int, pace: ProduceRate) -> float:
        """Seconds from the start of this part until the next event is due."""
        if pace.rate is not None:
            return (self.events - first) / pace.rate
        if pace.speed is not None:
            return float(self.data.ts[self.events] - self.data.ts[first]) / 1000 / pace.speed
        return 0.0

    def _wait_until(self, due: float) -> None:
        while (left := due - self._clock()) > 0 and not self.stop.wait(min(left, _MAX_POLL_S)):
            self._delivery.check()
            self._report()

    def _wait_for_flows(self, pace: ProduceRate) -> None:
        """If `limit` events are in flight, wait until a quarter of them has been learned."""
        if pace.in_flight is None or self._last_in_flight + self._produced_since < pace.limit:
            return
        fewest, interval_s, changed = float("inf"), _MIN_POLL_S, self._clock()
        while True:
            self._delivery.check()
            self._last_in_flight, self._produced_since = pace.in_flight() + len(self._delivery), 0
            if self._last_in_flight <= pace.limit * 3 // 4 or self.stop.wait(interval_s):
                return
            if self._last_in_flight < fewest:
                fewest, changed = self._last_in_flight, self._clock()
            if self._clock() - changed > pace.timeout_s:
                raise ProduceError(
                    f"{self._last_in_flight} events are in flight and none was learned for {pace.timeout_s:g} s: "
                    "`premiere status` shows which flow is stuck."
                )
            interval_s = min(interval_s * 2, _MAX_POLL_S)
            self._report()

    def _report(self, last: bool = False) -> None:
        if self._progress and (last or self._clock() - self._reported >= _PROGRESS_INTERVAL_S):
            self._reported = self._clock()
            ts = int(self.data.ts[self.events - 1]) if self.events else 0
            self._progress(ProduceProgress(self.events, len(self.data), self.launches, ts))
