"""The cache of titles: which titles a model version does not contain."""

import pytest

from streaming.state.title_cache import TITLE_EVICTIONS, TitleCache
from tests.support.publish import later_record, recommender, world
from tests.support.publisher import new_title


def cache_with_changes() -> TitleCache:
    """Fifty titles read at startup, and three changes after it, of which two are in the learner log."""
    cache = TitleCache()
    cache.update(world().titles[:50], at_startup=True)
    logged, late = world().titles[0], new_title("Late", offset=501)
    cache.update([logged, late, new_title("Unlogged", offset=502)])
    cache.set_log_offset(logged, 10)
    cache.set_log_offset(late, 900)
    return cache


def test_titles_newer_than_the_log_position_are_missing_in_a_version() -> None:
    cache = cache_with_changes()
    assert {title.title for title in cache.newer_than(900)} == {"late", "unlogged"}
    assert {title.title for title in cache.newer_than(901)} == {"unlogged"}


def test_missing_titles_are_added_to_a_version() -> None:
    cache, version = cache_with_changes(), recommender()
    cache.add_missing(version, cache.newer_than(900))
    assert version.is_candidate("late")
    assert version.is_candidate("unlogged")


def test_withdrawal_reaches_a_version_without_free_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, version = TitleCache(), recommender()
    offered = next(title for title in world().titles if version.is_candidate(title.title))
    lacking = new_title("Lacking", offset=502)
    cache.update([later_record(offered, 1, withdrawn=True), lacking], at_startup=True)
    monkeypatch.setattr(version, "free_capacity", lambda: 0)
    cache.add_missing(version, [])
    assert not version.is_candidate(offered.title)
    assert not version.is_candidate(lacking.title)


def test_repeated_older_record_does_not_hide_a_newer_one() -> None:
    cache, old = TitleCache(), world().titles[0]
    new = later_record(old, 700)
    cache.update([new], at_startup=True)
    cache.set_log_offset(new, 20)
    cache.set_log_offset(old, 30)
    assert cache.newer_than(15) == [new]


def test_only_changes_are_returned_and_withdrawals_are_tracked() -> None:
    cache, title = TitleCache(), world().titles[0]
    assert cache.update([title]) == [title]
    assert cache.update([title]) == []
    withdrawn = later_record(title, 700, withdrawn=True)
    assert cache.update([withdrawn]) == [withdrawn]
    assert (cache.withdrawn, cache.newest_stamp) == (frozenset({title.title}), withdrawn.stamp)
    cache.update([later_record(withdrawn, 800, withdrawn=False)])
    assert cache.withdrawn == frozenset()


def test_full_cache_evicts_withdrawn_titles_first_then_the_longest_unchanged() -> None:
    cache = TitleCache(max_titles=20)
    titles = [new_title(f"T{n}", offset=n + 1) for n in range(20)]
    cache.update(titles)
    cache.update([later_record(titles[n], 100 + n, withdrawn=True) for n in (7, 9)])
    cache.set_log_offset(titles[0], 5)
    cache.update([new_title("late 1", offset=200), new_title("late 2", offset=201)])
    assert (len(cache.titles), cache.withdrawn, titles[0].title in cache.titles) == (20, frozenset(), True)
    evicted = TITLE_EVICTIONS._value.get()
    cache.update([new_title(f"flood {n}", offset=300 + n) for n in range(5)])
    assert [title.title in cache.titles for title in titles[:7]] == [False] * 5 + [True] * 2
    assert (len(cache.titles), len(cache.newer_than(0)), len(cache._logged)) == (20, 20, 0)
    assert TITLE_EVICTIONS._value.get() == evicted + 5
