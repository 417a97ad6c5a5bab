"""Deduplication by a high-water mark and a bitmap: no event is new twice, however many events are reprocessed."""

from pathlib import Path
from random import Random

import pytest

from model import checkpoint
from streaming.state.deduplicator import MAX_SOURCES, Deduplicator
from tests.support.learner import state_differences

WINDOW = 65_536


@pytest.mark.parametrize("first_repeated", [0, 30_000])
def test_reprocessing_more_than_the_window_takes_no_event_twice(first_repeated: int) -> None:
    deduplicator, events = Deduplicator(WINDOW), 100_000  # 70,000 and more are repeated
    assert all(deduplicator.is_new(3, offset) for offset in range(events))
    assert not any(deduplicator.is_new(3, offset) for offset in range(first_repeated, events))
    assert deduplicator.is_new(3, events)


def test_out_of_order_event_within_the_window_is_new_once() -> None:
    deduplicator, late = Deduplicator(100), list(range(1_000))
    random = Random(0)
    for start in range(0, 1_000, 50):  # an event is at most 99 offsets late
        block = late[start : start + 50]
        random.shuffle(block)
        late[start : start + 50] = block
    assert all(deduplicator.is_new(0, offset) for offset in late)
    assert not any(deduplicator.is_new(0, offset) for offset in late)


def test_event_below_the_window_is_a_duplicate() -> None:
    deduplicator = Deduplicator(3)
    assert [deduplicator.is_new(0, offset) for offset in (10, 7, 8, 8)] == [True, False, True, False]
    assert deduplicator.is_new(0, 11)
    assert [deduplicator.is_new(0, offset) for offset in (8, 9, 10, 11)] == [False, True, False, False]


def test_partitions_are_independent() -> None:
    deduplicator = Deduplicator(3)
    assert all(deduplicator.is_new(partition, 5) for partition in range(4))
    assert not any(deduplicator.is_new(partition, 5) for partition in range(4))


def test_recreated_topic_has_its_own_offsets() -> None:
    deduplicator = Deduplicator(8)
    for source in ("topic-1", "topic-2"):
        assert all(deduplicator.is_new(0, offset, source) for offset in range(20))
    assert not any(deduplicator.is_new(0, offset, source) for source in ("topic-1", "topic-2") for offset in range(20))


def test_remembered_topics_are_bounded() -> None:
    deduplicator = Deduplicator(8)
    for number in range(3 * MAX_SOURCES):
        assert deduplicator.is_new(0, 0, f"topic-{number}")
        assert not deduplicator.is_new(0, 0, f"topic-{number}")
    assert len(deduplicator.state_dict()["sources"]) == MAX_SOURCES


@pytest.mark.parametrize("gap", [1, 2, 6, 7, 8, 1_000])
def test_offsets_in_a_gap_are_new(gap: int) -> None:
    deduplicator = Deduplicator(7)
    assert all(deduplicator.is_new(0, offset) for offset in range(20))
    assert deduplicator.is_new(0, 20 + gap)
    in_window = range(max(20, 20 + gap + 1 - 7), 20 + gap)
    assert all(deduplicator.is_new(0, offset) for offset in in_window)
    assert not any(deduplicator.is_new(0, offset) for offset in range(20))


def test_state_is_a_bounded_bitmap_and_continues_alike(tmp_path: Path) -> None:
    saved, random = Deduplicator(1_000), Random(1)
    stream = [(random.randrange(2), max(0, n + random.randrange(-300, 1))) for n in range(10_000)]
    for partition, offset in stream[:6_000]:
        saved.is_new(partition, offset)
    (source,) = saved.state_dict()["sources"]
    assert [seen["seen"].nbytes for seen in source["partitions"].values()] == [1_000 // 8] * 2
    checkpoint.save(str(tmp_path / "1"), {"log": saved.state_dict()}, {})
    restored = Deduplicator(1_000)
    restored.load_state_dict(checkpoint.load(str(tmp_path / "1"))[0]["log"])
    later = [(saved.is_new(*event), restored.is_new(*event)) for event in stream[5_000:]]
    assert {True, False} == {new for new, _ in later}
    assert all(one == other for one, other in later)
    assert state_differences(saved.state_dict(), restored.state_dict()) == []


@pytest.mark.parametrize("window", [4, 16])
def test_state_of_another_window_repeats_no_event(window: int) -> None:
    saved, restored = Deduplicator(8), Deduplicator(window)
    for offset in (*range(20), 21):
        saved.is_new(0, offset)
    restored.load_state_dict(saved.state_dict())
    assert not any(restored.is_new(0, offset) for offset in (*range(20), 21))
    assert restored.is_new(0, 20)
