"""A step advances its commit position; the source that commits it reads the offsets."""

from streaming.kafka.commit_position import CommitPosition, ReadPosition


def test_position_is_unknown_before_the_first_advance() -> None:
    position = CommitPosition({0: 5})
    assert (position.get(0), position.get(1)) == (5, None)


def test_position_advances_each_partition_separately() -> None:
    position = CommitPosition()
    position.advance(0, 7)
    position.advance(1, 3)
    position.advance(0, 9)
    assert (position.get(0), position.get(1)) == (9, 3)


def test_position_does_not_share_the_offsets_it_was_created_from() -> None:
    offsets = {0: 1}
    position = CommitPosition(offsets)
    position.advance(0, 2)
    assert offsets == {0: 1}


def test_markers_behind_the_last_durable_record_are_committed() -> None:
    read = ReadPosition(5)
    assert (read.committable(None), read.committable(4), read.committable(5)) == (None, 4, 5)
    read.deliver(7)
    read.reach_end(10)
    assert (read.next, read.committable(5), read.committable(8)) == (10, 5, 10)
    read.deliver(12)  # the end was that of then
    assert (read.next, read.committable(8), read.committable(13)) == (13, 8, 13)
    read.reach_end(11)  # of an earlier answer
    assert read.next == 13
