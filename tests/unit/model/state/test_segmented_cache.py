"""Tests of the cache in two segments: who is evicted, and the room for newcomers."""

from collections import OrderedDict

import numpy as np

from model.state.segmented_cache import SegmentedCache


def keys(cache: SegmentedCache[int]) -> str:
    return "".join(cache)


def test_entries_on_probation_are_evicted_before_proven_ones() -> None:
    cache: SegmentedCache[int] = SegmentedCache(10)
    for n, key in enumerate("abcd"):
        cache.put(key, n, is_proven=key in "ac")
    assert (keys(cache), "".join(reversed(cache)), list(cache.values())) == ("bdac", "cadb", [1, 3, 0, 2])
    cache.put("b", 9, is_proven=False)  # used again
    assert [cache.pop_oldest() for _ in range(4)] == [("d", 3), ("b", 9), ("a", 0), ("c", 2)]
    assert (len(cache), cache.get("a"), cache.pop("a")) == (0, None, None)


def test_proven_entries_leave_room_for_newcomers() -> None:
    cache: SegmentedCache[int] = SegmentedCache(20)
    for n, key in enumerate("abcdefghijklmnopqrst"):
        cache.put(key, n, is_proven=True)
    assert "".join(cache.probation) == "ab"  # the least recently used ones are back on probation
    assert cache.pop_oldest() == ("a", 0)


def test_with_one_segment_it_is_a_cache_by_recency() -> None:
    random, cache, expected = np.random.default_rng(1), SegmentedCache[int](50), OrderedDict[str, int]()
    for n, key in enumerate(map(str, random.integers(80, size=2_000).tolist())):
        cache.put(key, n, is_proven=False)
        expected.pop(key, None)
        expected[key] = n
        if len(cache) > 50:
            assert cache.pop_oldest() == expected.popitem(last=False)
    assert list(cache) == list(expected)
