"""Producing a dataset to a real broker: delivery, order, launches ahead, and pace."""

import socket
import threading
import time
import uuid
from dataclasses import replace
from typing import NamedTuple

import pytest

from infra.data.datasets import Dataset
from infra.data.producer import DatasetProducer, Delivery, ProduceError, ProduceProgress, ProduceRate
from infra.data.simulate import simulate
from infra.local.embedded import LOOPBACK, free_port
from infra.topics import create_topics
from streaming.kafka.source import read_all
from streaming.records import MAX_LAUNCH_BYTES, Event, Launch, decode_event, decode_launch
from streaming.topics import Topic


class Log(NamedTuple):
    """Two new topics on the broker."""

    config: dict[str, str]
    events: str
    launches: str

    def producer(self, data: Dataset, **options: object) -> DatasetProducer:
        return DatasetProducer(data, self.config, user_events=self.events, title_launches=self.launches, **options)  # type: ignore[arg-type]

    def read_events(self) -> list[Event]:
        return [decode_event(message.value or b"") for message in read_all(self.config, self.events)]

    def read_launches(self) -> list[Launch]:
        return [decode_launch(message.value or b"") for message in read_all(self.config, self.launches)]


@pytest.fixture
def log(kafka: str) -> Log:
    suffix, config = uuid.uuid4().hex[:8], {"bootstrap.servers": kafka}
    made = Log(config, f"produced-events-{suffix}", f"produced-launches-{suffix}")
    create_topics(config, [Topic(made.events, 1, {}), Topic(made.launches, 1, {})])
    return made


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate(users=20, titles=80, events=600, days=60, seed=2)


def all_events(data: Dataset) -> list[Event]:
    return [data.event(k) for k in range(len(data))]


def test_every_event_and_launch_is_delivered_once_in_order(log: Log, data: Dataset) -> None:
    with log.producer(data) as producer:
        assert producer.produce() == 600
    assert log.read_events() == all_events(data)
    assert log.read_launches() == data.launches
    first = next(read_all(log.config, log.events))
    assert (first.key or b"").decode() == data.event(0).user


def test_events_of_a_user_keep_their_order(kafka: str, data: Dataset) -> None:
    suffix, config = uuid.uuid4().hex[:8], {"bootstrap.servers": kafka}
    spread = Log(config, f"spread-events-{suffix}", f"spread-launches-{suffix}")
    create_topics(config, [Topic(spread.events, 4, {}), Topic(spread.launches, 1, {})])
    with spread.producer(data) as producer:
        producer.produce()
    found = spread.read_events()
    assert len(found) == 600
    for user in data.users:
        assert [e for e in found if e.user == user] == [e for e in all_events(data) if e.user == user]


def test_launches_are_produced_ahead_of_events(log: Log, data: Dataset) -> None:
    sent: list[tuple[int, int]] = []
    with log.producer(data, ahead=50) as producer:
        assert producer.launch_ahead() == (data.launched < data.ts[50]).sum()
        assert len(log.read_launches()) == producer.launches
        producer.produce(before=lambda _: sent.append((producer.events, producer.launches)))
    for event, launches in sent[:-50]:
        assert launches == (data.launched < data.ts[event + 50]).sum()
    assert sent[-1][1] == len(data.launches)


def test_data_set_is_produced_in_parts_without_repeated_launches(log: Log, data: Dataset) -> None:
    part = data.slice(200, 500)
    with log.producer(part) as producer:
        assert producer.produce(until=100) == 100
        assert log.read_events() == all_events(data)[200:300]
        assert producer.produce() == 300
    assert log.read_events() == all_events(data)[200:500]
    assert log.read_launches() == part.launches


def test_events_in_flight_stay_below_the_limit(log: Log, data: Dataset) -> None:
    learned, highest = 0, 0
    producer = log.producer(data)

    def in_flight() -> int:  # learns some events at each call
        nonlocal learned
        learned = min(producer.events, learned + 17)
        return producer.events - learned

    def note(_: Event) -> None:
        nonlocal highest
        highest = max(highest, producer.events + 1 - learned)

    with producer:
        producer.produce(pace=ProduceRate(in_flight=in_flight, limit=40), before=note)
    assert len(log.read_events()) == 600
    assert 30 <= highest <= 40


def test_stuck_flows_raise_after_the_timeout(log: Log, data: Dataset) -> None:
    with (
        log.producer(data) as producer,
        pytest.raises(ProduceError, match=r"none was learned .*`premiere status`"),
    ):
        producer.produce(pace=ProduceRate(in_flight=lambda: 99, limit=10, timeout_s=0.05))
    assert len(log.read_events()) <= 10


@pytest.mark.parametrize("pace", [ProduceRate(rate=200), ProduceRate(speed=200)])
def test_events_are_produced_when_due(log: Log, data: Dataset, pace: ProduceRate) -> None:
    part = data.slice(0, 40)
    began, sent = time.monotonic(), []
    if pace.speed:
        pace = ProduceRate(speed=float(part.ts[-1] - part.ts[0]) / 1000 / 0.3)  # the whole in 0.3 s
    with log.producer(part, clock=lambda: time.monotonic() - began) as producer:
        producer.produce(pace=pace, before=lambda _: sent.append(time.monotonic() - began))
    due = [
        k / 200 if pace.rate else float(part.ts[k] - part.ts[0]) / float(part.ts[-1] - part.ts[0]) * 0.3
        for k in range(40)
    ]
    assert all(at >= when for at, when in zip(sent, due, strict=True))


def test_stop_ends_producing(log: Log, data: Dataset) -> None:
    stop = threading.Event()
    with log.producer(data, stop=stop) as producer:
        produced = producer.produce(
            pace=ProduceRate(rate=1000), before=lambda _: stop.set() if producer.events == 41 else None
        )
    assert produced == 42
    assert log.read_events() == all_events(data)[:42]


def test_progress_is_reported_to_the_end(log: Log, data: Dataset) -> None:
    reports: list[ProduceProgress] = []
    with log.producer(data, progress=reports.append) as producer:
        producer.produce()
    assert reports[-1] == ProduceProgress(600, 600, len(data.launches), int(data.ts[-1]))


def test_client_is_replaced_after_an_outage(log: Log) -> None:
    delivery = Delivery({"bootstrap.servers": f"{LOOPBACK}:{free_port()}"}, timeout_s=30)
    deadline = time.monotonic() + 20
    while not delivery._connection.may_be_stale:
        delivery.check(0.1)
        assert time.monotonic() < deadline
    delivery._config |= log.config  # it is back, and this client has no broker
    delivery.send(log.events, "u", b"{}")
    delivery.flush()
    assert [message.value for message in read_all(log.config, log.events)] == [b"{}"]
    delivery.close()


def test_unreachable_broker_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        delivery = Delivery({"bootstrap.servers": address}, timeout_s=1)
        delivery.send("anything", "key", b"value")
        with pytest.raises(ProduceError, match=rf"Kafka at {address} did not accept 1 records .*: is it running\?"):
            delivery.flush()
        delivery.close()


def test_invalid_rate_is_refused() -> None:
    with pytest.raises(ProduceError, match="not both"):
        ProduceRate(speed=2, rate=2)
    with pytest.raises(ProduceError, match="above 0"):
        ProduceRate(rate=0)


def test_offsets_of_delivered_records_are_kept(log: Log, data: Dataset) -> None:
    with log.producer(data) as producer:
        producer.produce()
    for topic, sent in ((log.events, len(data)), (log.launches, len(data.launches))):
        (offsets,) = producer.offsets()[topic].values()
        found = [message.offset for message in read_all(log.config, topic)]
        assert all(offset in offsets for offset in found)
        assert (offsets.count_from(found[0]), offsets.count_from(found[-1] + 1)) == (sent, 0)


def test_events_later_than_now_are_refused_before_the_first_is_sent(log: Log, data: Dataset) -> None:
    late = replace(data, ts=data.ts - data.ts[-3] + round((time.time() + 3600) * 1000) - 60_000)
    with pytest.raises(ProduceError, match=r"600 events are later than now, .* nothing was sent"):
        log.producer(replace(late, ts=late.ts + 10**10))
    ahead = int((late.ts > (time.time() + 3600) * 1000).sum())
    with pytest.raises(ProduceError, match=f"^{ahead} of 600 events are later than now"):
        log.producer(late)
    log.producer(replace(late, ts=late.ts - 10**10)).close()
    assert (log.read_events(), log.read_launches()) == ([], [])


def test_launch_of_the_largest_size_is_delivered(log: Log) -> None:
    delivery = Delivery(log.config)
    delivery.send(log.launches, "large", b"x" * MAX_LAUNCH_BYTES)
    delivery.flush()
    delivery.close()
    assert [len(message.value or b"") for message in read_all(log.config, log.launches)] == [MAX_LAUNCH_BYTES]
