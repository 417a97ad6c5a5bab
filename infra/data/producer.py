"""A data set into Kafka, in event-time order, as producers would have sent it: nothing lost, nothing early.

Launches run `ahead` events before the events, so that a title can be known before its first event, as in life. Times
stay those of the data; what is late or in the future is judged by Kafka's record time. The replayer goes at a multiple
of the data's own pace, at a rate, or as fast as the loop learns, and lets a caller look at what each viewer is served
just before it produces what the viewer did.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from infra.data.datasets import DataSet
from infra.errors import PremiereError
from streaming.records import Event, to_json
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS

_DELIVERY: Final = 30.0  # seconds that a record may wait for its broker
_NAP: Final = 0.005  # seconds between two looks at what is in flight, at first
_LONG_NAP: Final = 0.2  # seconds, at most: also how late a stop is seen
_REPORT: Final = 0.25  # seconds between two reports of progress
_PRODUCER: Final[dict[str, Any]] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 2,
    "compression.type": "lz4",
    "partitioner": "murmur2_random",  # Kafka's own, so that every client finds a key in the same partition
    "queue.buffering.max.messages": 20_000,
    "delivery.report.only.error": True,
    "log_level": 2,  # we say it ourselves
}


class ReplayError(PremiereError):
    """A replay cannot go on; the message says why, and the remedy."""


class ProduceProgress(NamedTuple):
    """How far a replay has come."""

    events: int  # produced
    of: int
    launches: int  # produced
    ts: int  # event time reached, ms


@dataclass(frozen=True)
class ProduceRate:
    """How fast: `speed` times the data's own pace, or `rate` events/s; either way with at most `limit` in flight.

    `in_flight` tells how many produced events are not yet learned; without it, nothing holds the replay back. It is
    asked only when more than `limit` could be. `patience` is how many seconds it may stay the same before we give up.
    """

    speed: float | None = None
    rate: float | None = None
    in_flight: Callable[[], int] | None = None
    limit: int = 1000  # events
    patience: float = 120.0

    def __post_init__(self) -> None:
        if self.speed is not None and self.rate is not None:
            raise ReplayError("A replay goes at a speed or at a rate, not both: give one of them.")
        if any(value is not None and not value > 0 for value in (self.speed, self.rate, self.limit, self.patience)):
            raise ReplayError("Speed, rate, limit and patience of a replay must be above 0.")


class Delivery:
    """A producer that checks every delivery. Raises ReplayError once the broker has not taken a record."""

    def __init__(self, config: Mapping[str, Any], patience: float = _DELIVERY) -> None:
        self._address, self._patience = config.get("bootstrap.servers"), patience
        timeout = {"delivery.timeout.ms": round(patience * 1000)}
        calls = {"on_delivery": self._failed, "error_cb": self._away}
        self._config: dict[str, Any] = {**timeout, **_PRODUCER, **config, **calls}
        self._lost, self._reason = 0, ""
        self._connect()

    def _connect(self) -> None:
        self._producer, self._mistrusted = Producer(self._config), False

    def __len__(self) -> int:
        return len(self._producer)  # not yet delivered

    def send(self, topic: str, key: str, value: bytes) -> None:
        """Produce one record; waits where the queue is full."""
        self.check()
        if self._mistrusted and not len(self):
            self._connect()
        give_up = time.monotonic() + self._patience
        while True:
            try:
                return self._producer.produce(topic, key=key.encode(), value=value)
            except BufferError:
                self.check(0.05)
                if time.monotonic() > give_up:
                    raise self._error(len(self)) from None
            except KafkaException as error:
                self._reason = error.args[0].str()
                raise self._error(1) from error

    def check(self, seconds: float = 0.0) -> None:
        """Hear what became of records."""
        self._producer.poll(seconds)
        if self._lost:
            raise self._error(self._lost)

    def flush(self) -> None:
        """Wait until everything has been delivered."""
        left = self._producer.flush(self._patience + 1)
        if left or self._lost:
            raise self._error(left + self._lost)

    def close(self) -> None:
        """Give up what is still queued; after `flush` that is nothing."""
        self._producer.purge()
        self._producer.flush(1)

    def _away(self, error: KafkaError) -> None:
        self._mistrusted = True  # a client that lived through an outage may be deaf: see streaming.kafka.client.Witness

    def _failed(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._lost, self._reason = self._lost + 1, error.str()

    def _error(self, lost: int) -> ReplayError:
        why = f" ({self._reason})" if self._reason else ""
        return ReplayError(f"Kafka at {self._address} did not take {lost} records{why}: is it running?")


class DatasetProducer:
    """A data set on its way into Kafka: `play` in parts, history first and then what is read live, then `close`."""

    def __init__(
        self,
        data: DataSet,
        config: Mapping[str, Any],
        *,
        ahead: int = 300,
        progress: Callable[[ProduceProgress], None] | None = None,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        user_events: str = USER_EVENTS,
        title_launches: str = TITLE_LAUNCHES,
    ) -> None:
        self.events = self.launches = 0  # produced so far
        self.data, self.ahead, self.stop = data, ahead, stop or threading.Event()
        self._delivery, self._user_events, self._title_launches = Delivery(config), user_events, title_launches
        self._progress, self._clock, self._reported = progress, clock, clock()
        self._known, self._since = 0, 0  # in flight when last asked, events produced since

    def __enter__(self) -> "DatasetProducer":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the producer."""
        self._delivery.close()

    def launch_ahead(self) -> int:
        """Produce the launches due by the event `ahead` of the present one, delivered; how many there were so far.

        `play` does it as it goes. Called before, it lets a caller wait until the catalogue is known.
        """
        self._launch()
        self._delivery.flush()
        return self.launches

    def play(
        self, until: int | None = None, pace: ProduceRate | None = None, before: Callable[[Event], object] | None = None
    ) -> int:
        """Produce events up to index `until`, delivered, or until `stop` is set; how many there were so far.

        `before` is called with each event just before it is produced: `Served.count` for history, `Served.watch` live.
        """
        pace, end = pace or ProduceRate(), len(self.data) if until is None else min(until, len(self.data))
        first, began = self.events, self._clock()
        while self.events < end:
            self._launch()
            self._wait_until(began + self._due(first, pace))
            self._wait_for_room(pace)
            if self.stop.is_set():
                break
            self._produce(self.data.event(self.events), before)
            self._report()
        self._delivery.flush()
        self._report(last=True)
        return self.events

    def _produce(self, event: Event, before: Callable[[Event], object] | None) -> None:
        if before:
            before(event)
        self._delivery.send(self._user_events, event.user, to_json(event))
        self.events += 1
        self._since += 1

    def _launch(self) -> None:
        """Launches before the event that is `ahead` of the present one; with no such event, all that are left."""
        horizon = self.events + self.ahead
        due = len(self.data.launches)
        if horizon < len(self.data):
            due = int(self.data.launched.searchsorted(self.data.ts[horizon]))
        for launch in self.data.launches[self.launches : due]:
            self._delivery.send(self._title_launches, launch.title, to_json(launch))
            self.launches += 1

    def _due(self, first: int, pace: ProduceRate) -> float:
        """Seconds after the beginning of this part at which the present event is due."""
        if pace.rate is not None:
            return (self.events - first) / pace.rate
        if pace.speed is not None:
            return float(self.data.ts[self.events] - self.data.ts[first]) / 1000 / pace.speed
        return 0.0

    def _wait_until(self, due: float) -> None:
        while (left := due - self._clock()) > 0 and not self.stop.wait(min(left, _LONG_NAP)):
            self._delivery.check()
            self._report()

    def _wait_for_room(self, pace: ProduceRate) -> None:
        """Wait while more than `limit` events are in flight, then until a quarter of that has been learned."""
        if pace.in_flight is None or self._known + self._since < pace.limit:
            return
        least, nap, changed = float("inf"), _NAP, self._clock()
        while True:
            self._delivery.check()
            self._known, self._since = pace.in_flight() + len(self._delivery), 0
            if self._known <= pace.limit * 3 // 4 or self.stop.wait(nap):
                return
            if self._known < least:
                least, changed = self._known, self._clock()
            if self._clock() - changed > pace.patience:
                raise ReplayError(
                    f"{self._known} events have waited for {pace.patience:g} s without one being learned: "
                    "`premiere status` shows which flow stands still."
                )
            nap = min(nap * 2, _LONG_NAP)
            self._report()

    def _report(self, last: bool = False) -> None:
        if self._progress and (last or self._clock() - self._reported >= _REPORT):
            self._reported = self._clock()
            ts = int(self.data.ts[self.events - 1]) if self.events else 0
            self._progress(ProduceProgress(self.events, len(self.data), self.launches, ts))
