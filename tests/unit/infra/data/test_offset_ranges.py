"""Offsets are kept as ranges, and counted from any offset."""

from infra.data.offset_ranges import OffsetRanges


def test_offsets_with_gaps_are_kept() -> None:
    ranges, offsets = OffsetRanges(), [3, 4, 5, 8, 10, 11]
    for offset in offsets:
        ranges.add(offset)
    assert [offset for offset in range(15) if offset in ranges] == offsets
    for first in range(15):
        assert ranges.count_from(first) == sum(offset >= first for offset in offsets)


def test_no_offsets() -> None:
    assert 0 not in OffsetRanges()
    assert OffsetRanges().count_from(0) == 0
