"""Invalid records of internal topics are counted and skipped; they stop neither the start nor the flow `publish`."""

from typing import Any

from bytewax.testing import TestingSink, run_main
from msgspec import structs

from model.checkpoint import CheckpointError
from model.recommender import Recommender
from streaming.flows.publish import UNREADABLE, build, restore
from streaming.kafka.source import Message
from streaming.records import Activity, NewEvent, Title, to_msgpack
from streaming.state.publisher import Publisher
from tests.support.publish import NOW, message, polls, world


def poison() -> list[Activity | Title]:
    """Records that can be decoded and contradict themselves; the last one is a title."""
    last, title = world().activities[-1], world().titles[0]
    return [
        structs.replace(last, new=[NewEvent(len(last.titles), 0, 10**6, NOW)]),
        structs.replace(last, actions=[99] * len(last.actions)),
        structs.replace(last, times=last.times[1:]),
        structs.replace(last, titles=last.titles[1:]),
        structs.replace(title, stamp=10**6, semantic=bytes(7)),
    ]


def messages(topic: str, values: list[bytes]) -> list[Message]:
    return [message(topic, offset, value) for offset, value in enumerate(values)]


def no_version(url: str, ahead: Any) -> Recommender:
    raise CheckpointError(f"There is no checkpoint at {url}: these tests need none.")


def test_start_skips_records_that_contradict_themselves() -> None:
    records, publisher, before = [to_msgpack(one) for one in poison()], Publisher(), UNREADABLE._value.get()
    restore(publisher, messages("titles", records[-1:]), messages("activity", records), [])
    assert (len(publisher.users), len(publisher.titles.titles)) == (0, 0)
    assert UNREADABLE._value.get() == before + len(records) + 1


def test_event_counts_at_the_time_of_its_record_at_the_latest() -> None:
    ahead = NOW + 10**9
    last = world().activities[-1]
    event = NewEvent(len(last.titles) - 1, 0, 10**6, ahead)
    one = to_msgpack(structs.replace(last, times=[*last.times[:-1], ahead], new=[event]))
    publisher = Publisher()
    restore(publisher, [], messages("activity", [one]), [])
    publisher._live_events.serve(0)
    (update,) = publisher._live_events.take()
    assert update.recorded == [message("activity", 0, one).appended]


def test_flow_skips_records_that_contradict_themselves() -> None:
    records, publisher, before = [to_msgpack(one) for one in poison()], Publisher(), UNREADABLE._value.get()
    valid, titles = [to_msgpack(one) for one in world().activities], [to_msgpack(one) for one in world().titles]
    flow = build(
        activity=polls(messages("activity", [*records, *valid])),
        titles=polls(messages("titles", [*titles, records[-1]])),
        versions=polls(messages("model-versions", [b'{"path":"\xff"}'])),
        lists=TestingSink([]),
        publisher=publisher,
        load=no_version,
        clock=lambda: NOW / 1000,
    )
    run_main(flow)
    assert UNREADABLE._value.get() == before + len(records) + 2
    assert set(publisher.users.cached) == set(world().newest())
    assert dict(publisher.titles.titles.items()) == {title.title: title for title in world().titles}
