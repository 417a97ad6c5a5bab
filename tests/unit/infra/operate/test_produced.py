"""Produced records are accounted for by the committed offsets and the dead letters, with and without metrics."""

from collections import Counter

from confluent_kafka import Consumer, TopicPartition

from infra.data.offset_ranges import OffsetRanges
from infra.operate.produced import Account, FlowCounts, account, lines
from infra.settings import Settings
from streaming.topics import TITLE_LAUNCHES, USER_EVENTS
from tests.support.dead_letters import message, write_letters


def ranges(*offsets: int) -> OffsetRanges:
    made = OffsetRanges()
    for offset in offsets:
        made.add(offset)
    return made


def test_own_records_are_counted_among_those_of_others(new_kafka: dict[str, str]) -> None:
    settings = Settings(bootstrap_servers=new_kafka["bootstrap.servers"], metrics_port=0)
    consumer = Consumer({**new_kafka, "group.id": "features"})
    consumer.commit(offsets=[TopicPartition(USER_EVENTS, 0, 8)], asynchronous=False)
    consumer.close()
    own, foreign = (2, 3, 6, 7, 8), (4, 5)
    write_letters(new_kafka, *((message(offset), "out of range: x") for offset in (*own[:2], *foreign)))
    write_letters(new_kafka, (message(2), "out of range: x"), (message(6), "not JSON: x"))  # 2 was written again
    write_letters(new_kafka, (message(3, b"{", TITLE_LAUNCHES), "not JSON: x"))
    offsets = {USER_EVENTS: {0: ranges(*own)}, TITLE_LAUNCHES: {0: ranges(3)}}
    sent, before = {USER_EVENTS: 5, TITLE_LAUNCHES: 1}, {USER_EVENTS: None, TITLE_LAUNCHES: None}
    found = account(settings, sent, offsets, before, standstill_s=0.5)
    assert found[USER_EVENTS] == Account(5, 1, Counter({"out of range": 2, "not JSON": 1}))
    assert found[TITLE_LAUNCHES] == Account(1, 1, Counter({"not JSON": 1}))
    assert [one.taken for one in found.values()] == [1, 0]


def test_duplicates_and_dropped_letters_are_not_taken() -> None:
    one = Account(100, 10, Counter({"not JSON": 5}), FlowCounts(duplicates=20, dropped=15))
    assert one.taken == 50


def test_lines_name_every_outcome() -> None:
    known = lines({USER_EVENTS: Account(100, 0, Counter({"not JSON": 5}), FlowCounts(20, 15))})
    assert [text in " ".join(known) for text in ("60 of 100", "20 duplicates", "5 not JSON", "15 invalid")] == [
        True
    ] * 4
    unknown = lines({TITLE_LAUNCHES: Account(7, 7)})
    assert [text in " ".join(unknown) for text in ("0 of 7", "do not answer", "has not read")] == [True] * 3
