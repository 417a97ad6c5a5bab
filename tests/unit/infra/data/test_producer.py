"""A replay on a real broker: everything arrives, in order, launches ahead, at a pace; what readers had is scored."""

import math
import socket
import threading
import time
import uuid
from typing import NamedTuple

import pytest

from infra.data.datasets import DataSet
from infra.data.producer import DatasetProducer, Delivery, ProduceProgress, ProduceRate, ReplayError
from infra.data.simulate import simulate
from infra.demo.served_evaluation import Served, rank_in
from infra.local.embedded import HOST, free_port
from infra.topics import create
from streaming.kafka.source import read_all
from streaming.records import Event, Launch, decode_event, decode_launch
from streaming.topics import Topic


class Log(NamedTuple):
    """Two topics of their own on the broker."""

    config: dict[str, str]
    events: str
    launches: str

    def replay(self, data: DataSet, **options: object) -> DatasetProducer:
        return DatasetProducer(data, self.config, user_events=self.events, title_launches=self.launches, **options)  # type: ignore[arg-type]

    def read_events(self) -> list[Event]:
        return [decode_event(message.value or b"") for message in read_all(self.config, self.events)]

    def read_launches(self) -> list[Launch]:
        return [decode_launch(message.value or b"") for message in read_all(self.config, self.launches)]


@pytest.fixture
def log(kafka: str) -> Log:
    mark, config = uuid.uuid4().hex[:8], {"bootstrap.servers": kafka}
    made = Log(config, f"replayed-events-{mark}", f"replayed-launches-{mark}")
    create(config, [Topic(made.events, 1, {}), Topic(made.launches, 1, {})])
    return made


@pytest.fixture(scope="module")
def data() -> DataSet:
    return simulate(users=20, titles=80, events=600, days=60, seed=2)


def all_events(data: DataSet) -> list[Event]:
    return [data.event(k) for k in range(len(data))]


def test_every_event_and_launch_arrives_once_in_event_time_order(log: Log, data: DataSet) -> None:
    with log.replay(data) as replay:
        assert replay.play() == 600
    assert log.read_events() == all_events(data)
    assert log.read_launches() == data.launches
    first = next(read_all(log.config, log.events))
    assert (first.key or b"").decode() == data.event(0).user


def test_events_of_a_user_keep_their_order_over_partitions(kafka: str, data: DataSet) -> None:
    mark, config = uuid.uuid4().hex[:8], {"bootstrap.servers": kafka}
    spread = Log(config, f"spread-events-{mark}", f"spread-launches-{mark}")
    create(config, [Topic(spread.events, 4, {}), Topic(spread.launches, 1, {})])
    with spread.replay(data) as replay:
        replay.play()
    found = spread.read_events()
    assert len(found) == 600
    for user in data.users:
        assert [e for e in found if e.user == user] == [e for e in all_events(data) if e.user == user]


def test_launches_run_ahead_of_the_events_by_the_look_ahead(log: Log, data: DataSet) -> None:
    sent: list[tuple[int, int]] = []
    with log.replay(data, ahead=50) as replay:
        assert replay.launch_ahead() == (data.launched < data.ts[50]).sum()
        assert len(log.read_launches()) == replay.launches
        replay.play(before=lambda _: sent.append((replay.events, replay.launches)))
    for event, launches in sent[:-50]:
        assert launches == (data.launched < data.ts[event + 50]).sum()
    assert sent[-1][1] == len(data.launches)


def test_a_slice_is_played_in_parts_and_no_launch_twice(log: Log, data: DataSet) -> None:
    part = data.slice(200, 500)
    with log.replay(part) as replay:
        assert replay.play(until=100) == 100
        assert log.read_events() == all_events(data)[200:300]
        assert replay.play() == 300
    assert log.read_events() == all_events(data)[200:500]
    assert log.read_launches() == part.launches


def test_no_more_events_are_in_flight_than_the_limit(log: Log, data: DataSet) -> None:
    learned, most = 0, 0
    replay = log.replay(data)

    def in_flight() -> int:  # a loop that learns some while we look
        nonlocal learned
        learned = min(replay.events, learned + 17)
        return replay.events - learned

    def note(_: Event) -> None:
        nonlocal most
        most = max(most, replay.events + 1 - learned)

    with replay:
        replay.play(pace=ProduceRate(in_flight=in_flight, limit=40), before=note)
    assert len(log.read_events()) == 600
    assert 30 <= most <= 40


def test_a_loop_that_stands_still_is_an_error_and_not_a_wait_without_end(log: Log, data: DataSet) -> None:
    with log.replay(data) as replay, pytest.raises(ReplayError, match="without one being learned: `premiere status`"):
        replay.play(pace=ProduceRate(in_flight=lambda: 99, limit=10, patience=0.05))
    assert len(log.read_events()) <= 10


@pytest.mark.parametrize("pace", [ProduceRate(rate=200), ProduceRate(speed=200)])
def test_events_go_out_when_they_are_due(log: Log, data: DataSet, pace: ProduceRate) -> None:
    part = data.slice(0, 40)
    began, sent = time.monotonic(), []
    if pace.speed:
        pace = ProduceRate(speed=float(part.ts[-1] - part.ts[0]) / 1000 / 0.3)  # the whole in 0.3 s
    with log.replay(part, clock=lambda: time.monotonic() - began) as replay:
        replay.play(pace=pace, before=lambda _: sent.append(time.monotonic() - began))
    due = [
        k / 200 if pace.rate else float(part.ts[k] - part.ts[0]) / float(part.ts[-1] - part.ts[0]) * 0.3
        for k in range(40)
    ]
    assert all(at >= when for at, when in zip(sent, due, strict=True))


def test_a_stop_ends_a_replay_where_it_is(log: Log, data: DataSet) -> None:
    stop = threading.Event()
    with log.replay(data, stop=stop) as replay:
        played = replay.play(pace=ProduceRate(rate=1000), before=lambda _: stop.set() if replay.events == 41 else None)
    assert played == 42
    assert log.read_events() == all_events(data)[:42]


def test_progress_is_told_to_the_end(log: Log, data: DataSet) -> None:
    told: list[ProduceProgress] = []
    with log.replay(data, progress=told.append) as replay:
        replay.play()
    assert told[-1] == ProduceProgress(600, 600, len(data.launches), int(data.ts[-1]))


def test_a_producer_that_lived_through_an_outage_is_not_written_with(log: Log) -> None:
    delivery = Delivery({"bootstrap.servers": f"{HOST}:{free_port()}"}, patience=30)
    deadline = time.monotonic() + 20
    while not delivery._mistrusted:
        delivery.check(0.1)
        assert time.monotonic() < deadline
    delivery._config |= log.config  # it is back, and this client has no broker
    delivery.send(log.events, "u", b"{}")
    delivery.flush()
    assert [message.value for message in read_all(log.config, log.events)] == [b"{}"]
    delivery.close()


def test_a_broker_that_is_not_there_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        delivery = Delivery({"bootstrap.servers": address}, patience=1)
        delivery.send("anything", "key", b"value")
        with pytest.raises(ReplayError, match=rf"Kafka at {address} did not take 1 records .*: is it running\?"):
            delivery.flush()
        delivery.close()


def test_a_pace_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ReplayError, match="not both"):
        ProduceRate(speed=2, rate=2)
    with pytest.raises(ReplayError, match="above 0"):
        ProduceRate(rate=0)


def test_the_rank_is_the_place_in_the_list() -> None:
    assert [rank_in(["a", "b", "c"], title) for title in "abcd"] == [1, 2, 3, math.inf]


def test_what_readers_had_is_scored_before_it_counts_and_by_the_same_slices(log: Log, data: DataSet) -> None:
    lists = {user: [launch.title for launch in data.launches[:20]] for user in data.users}
    asked: list[tuple[str, int]] = []
    replay = log.replay(data)

    def read(user: str) -> list[str]:
        asked.append((user, replay.events))
        return lists[user]

    served, history = Served(read), 400
    with replay:
        replay.play(until=history, before=served.count)
        assert asked == []
        replay.play(before=served.watch)
    events = all_events(data)
    assert asked == [(event.user, index) for index, event in enumerate(events) if index >= history]  # nobody repeats
    reciprocal = [1 / rank_in(lists[event.user], event.title) for event in events[history:]]
    assert served.ranking.report()["mrr"]["all"] == pytest.approx(sum(reciprocal) / 200)
    new = [k for k in range(history, 600) if sum(e.title == events[k].title for e in events[:k]) < 10]
    assert served.ranking.scored()["new_titles"] == len(new)


def test_what_a_viewer_has_seen_and_what_is_no_target_is_not_scored() -> None:
    play, again = Event(user="u", title="a", ts=1), Event(user="u", title="a", ts=2)
    impression = Event(user="u", title="b", ts=3, action="impression")
    after = Event(user="u", title="b", ts=4)
    for repeats, scored in ((False, [1, None, None, 2]), (True, [1, 1, None, 2])):
        served, found = Served(lambda _: ["a", "b"], repeats=repeats), []
        for event in (play, again, impression, after):
            found.append(served.score(event))
            served.count(event)
        assert found == scored
        assert served.ranking.scored()["unseen_titles"] == 2  # an impression does not make a title known


def test_what_the_lists_show_is_measured_by_counts_from_before_the_event() -> None:
    """One viewer after another takes `a`, and everybody is shown `a` and `b`: `a` is a known title from its tenth
    event on, `b` never is."""
    shown = {"at first": ["a"], "later": ["a", "b"]}
    served = Served(lambda user: shown["at first" if int(user) < 15 else "later"])
    for n in range(20):
        served.watch(Event(user=str(n), title="a", ts=n))
    with_new = (10 + 5) / 20  # until `a` has ten events, and again with `b`
    found = served.exposure.report(candidates=8)
    assert found == {"coverage": 2 / 8, "popularity": sum(range(20)) / 25, "with_new": with_new}
