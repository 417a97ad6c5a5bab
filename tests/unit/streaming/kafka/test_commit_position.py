"""A step advances its commit position; the source that commits it reads the offsets."""

from streaming.kafka.commit_position import CommitPosition


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
