"""The order of a title's records follows the topic, whatever the producer's `ts` and the recovery store say."""

import pytest

from features.text_encoders import TextEncoder, load_encoder
from streaming.records import Title
from streaming.state.publisher import Publisher
from streaming.state.title_cache import TitleCache
from tests.support.titles import NOW, TOY, launch, run_flow, withdrawal


@pytest.fixture(scope="module")
def encode() -> TextEncoder:
    return load_encoder()


def names_and_stamps(titles: list[Title]) -> list[tuple[str, int]]:
    return [(title.name, title.stamp) for title in titles]


def test_topic_order_decides_whatever_the_ts(encode: TextEncoder) -> None:
    run = run_flow(
        encode,
        launch("1", 0, name="a", ts=NOW),
        launch("1", 1, name="b", ts=5_000),
        launch("1", 2, name="c", ts=1_000),  # an older ts, but a later record
        launch("1", 3, name="d", ts=NOW + 60_000),  # a producer's clock that is ahead
        launch("1", 4, name="e", ts=6_000),
    )
    assert names_and_stamps(run.written()) == [(name, (NOW + n) * 1000) for n, name in enumerate("abcde")]


def test_stamps_strictly_increase_within_one_append_time(encode: TextEncoder) -> None:
    records = [launch("1", n, name=name)._replace(appended=NOW - n) for n, name in enumerate("abc")]  # a clock set back
    assert names_and_stamps(run_flow(encode, *records).written()) == [
        (name, NOW * 1000 + n) for n, name in enumerate("abc")
    ]


def test_record_time_before_2000_becomes_a_dead_letter(encode: TextEncoder) -> None:
    run = run_flow(encode, *(launch("1", n)._replace(appended=appended) for n, appended in enumerate((-1, 0, 10**9))))
    assert [reason.partition(":")[0] for reason in run.reasons()] == ["record time"] * 3


@pytest.mark.parametrize("kept", [0, 1, 2, 3])  # records that the topic still has when the recovery store is lost
def test_withdrawal_counts_after_the_recovery_store_was_lost(encode: TextEncoder, kept: int) -> None:
    ts = NOW - 86_400_000  # the producer always sends the launch time of the title
    changes = [launch("1", n, **{**TOY, "name": f"Toy Story {n}"}, ts=ts) for n in range(3)]
    publisher, cache = Publisher(), TitleCache()
    publisher.on_launches(run_flow(encode, *changes).written())
    cache.update(run_flow(encode, *changes).written(), at_startup=True)
    again = run_flow(encode, *changes[3 - kept :], withdrawal("1", 3))  # a new flow has no state
    publisher.on_launches(again.written())
    assert publisher.titles.withdrawn == {"1"}
    assert [title.withdrawn for title in cache.update(again.written())] == [True]
    event_times = [row["event_timestamp"] for row in again.offline.all()]
    assert event_times[-1] > run_flow(encode, *changes).offline.all()[-1]["event_timestamp"]


@pytest.mark.parametrize("place", range(3))  # launches that are read before the withdrawal
def test_withdrawal_applies_to_launches_appended_before_it_whichever_topic_is_read_first(
    encode: TextEncoder, place: int
) -> None:
    launches = [launch("1", 0, **TOY), launch("1", 2, **{**TOY, "name": "Toy Story 1"})]  # 2: the same time
    records = [*launches[:place], withdrawal("1", 2), *launches[place:]]
    publisher = Publisher()
    publisher.on_launches(run_flow(encode, *records).written())
    assert publisher.titles.withdrawn == {"1"}
    assert dict(publisher.titles.titles.items())["1"].name == "Toy Story 1"  # histories contain the title
    publisher.on_launches(run_flow(encode, *records, launch("1", 3, **TOY)).written())
    assert publisher.titles.withdrawn == set()
