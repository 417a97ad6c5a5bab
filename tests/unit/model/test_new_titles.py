"""New titles: which compete for the slots of a list, and how the slots are shared."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.new_titles import (
    MAX_NEW_TITLES,
    MAX_PER_LIST,
    MAX_PER_MINUTE,
    MIN_MINUTES,
    choose_scored,
    find_new_titles,
    new_candidates,
    select_titles,
    select_top,
)
from model.state.catalog import Catalog

MINUTE_MS = 60_000
D_TEXT = 128


def launched(minutes: list[int], text_ME: NDArray[np.float32] | None = None) -> Catalog:
    """A catalog whose titles launched in these minutes, in this order."""
    catalog = Catalog(D_TEXT)
    for n, minute in enumerate(minutes):
        text_E = np.eye(D_TEXT, dtype=np.float32)[n % D_TEXT] if text_ME is None else text_ME[n]
        catalog.launch(catalog.ensure_row(f"t{n}", n), text_E, (), None, None, n, minute * MINUTE_MS)
    return catalog


def select(catalog: Catalog, score_C: list[float], size: int, slots: int, old: int = 0) -> list[int]:
    """The rows of the list; the first `old` titles are not new."""
    catalog.count_V[:old] = 1.0
    rows_C = np.arange(len(catalog))
    new = new_candidates(catalog, find_new_titles(catalog), rows_C)
    chosen = select_titles(new, np.array(score_C, np.float32), size, slots)
    return [int(row) for row in rows_C[chosen]]


def competing_rows(catalog: Catalog) -> list[int]:
    found = find_new_titles(catalog)
    assert sorted(found.competing_M) == np.flatnonzero(found.competing_V).tolist()
    return [int(row) for row in found.competing_M]


def scored_rows(catalog: Catalog, score_V: list[float]) -> list[int]:
    """The rows that the ranker scores for a list, given the linear score of every row."""
    found = find_new_titles(catalog)
    return [int(row) for row in choose_scored(found, np.array(score_V, np.float32)[found.competing_M])]


def test_titles_without_evidence_compete_newest_first() -> None:
    catalog = launched([0, 1, 2, 3, 4])
    catalog.count_V[[0, 1]] = 1.0, 0.9  # one event of an established user, some of new users
    catalog.withdraw(3)
    assert competing_rows(catalog) == [4, 2, 1]
    assert competing_rows(Catalog()) == []


def test_launches_beyond_the_quota_of_a_minute_wait_for_events_of_the_first() -> None:
    catalog = launched([5] * (MAX_PER_MINUTE + 10) + [6])
    assert sorted(competing_rows(catalog)) == [*range(MAX_PER_MINUTE), MAX_PER_MINUTE + 10]
    catalog.count_V[:3] = 1.0
    assert sorted(competing_rows(catalog)) == [*range(3, MAX_PER_MINUTE + 3), MAX_PER_MINUTE + 10]


def test_old_titles_compete_only_where_few_are_new() -> None:
    minutes = [0] * 10 + list(range(2_000, 2_000 + MIN_MINUTES))  # the first ones are more than a day old
    assert sorted(competing_rows(launched(minutes[:-1]))) == list(range(len(minutes) - 1))
    assert sorted(competing_rows(launched(minutes))) == list(range(10, len(minutes)))


def test_flood_of_a_minute_ends_the_time_of_no_older_title() -> None:
    assert 0 in competing_rows(launched([0] + [2_000] * (MAX_PER_LIST + 10)))


def test_near_identical_titles_of_many_minutes_end_the_time_of_no_older_title() -> None:
    text_ME = np.eye(D_TEXT, dtype=np.float32)[[0, *[1] * (MIN_MINUTES + 10)]]
    catalog = launched([0, *range(2_000, 2_000 + MIN_MINUTES + 10)], text_ME)
    assert 0 in competing_rows(catalog)


def test_floods_of_many_minutes_leave_room_for_a_title_of_another_minute() -> None:
    catalog = launched([0] + [minute for minute in range(1, 41) for _ in range(MAX_PER_MINUTE)])
    competing = competing_rows(catalog)
    assert 0 in competing
    assert len(competing) == MAX_NEW_TITLES < len(catalog)


def test_flood_of_a_minute_leaves_other_minutes_their_scored_titles() -> None:
    catalog = launched([*range(30), *[30] * MAX_PER_MINUTE])
    scored = scored_rows(catalog, [*[1.0] * 30, *np.arange(MAX_PER_MINUTE) + 2.0])
    best_first = list(reversed(range(30, 30 + MAX_PER_MINUTE)))
    assert scored[0] == best_first[0]
    assert sorted(scored[1:31]) == list(range(30))
    assert scored[31:] == best_first[1 : MAX_PER_LIST - 30]


def test_near_identical_titles_take_one_of_the_scored_places() -> None:
    text_ME = np.eye(D_TEXT, dtype=np.float32)[[*range(30), *[30] * 100]]
    text_ME[30:] += 0.01 * np.random.default_rng(1).normal(size=(100, D_TEXT)).astype(np.float32)
    text_ME /= np.linalg.norm(text_ME, axis=1, keepdims=True)
    catalog = launched(list(range(130)), text_ME)
    scored = scored_rows(catalog, [*[1.0] * 30, *[2.0] * 99, 3.0])
    assert scored[0] == 129
    assert sorted(scored[1:]) == list(range(30))


def test_titles_that_are_no_candidates_of_the_user_are_not_scored() -> None:
    assert scored_rows(launched([0, 1, 2]), [1.0, -np.inf, 2.0]) == [2, 0]
    assert scored_rows(Catalog(D_TEXT), []) == []


def test_flood_of_launches_in_a_minute_gets_one_slot() -> None:
    catalog = launched([1, 1, 1, 1, 7, 8, 9])
    assert select(catalog, [9, 8, 7, 6, 3, 2, 1], 3, 3) == [0, 4, 5]


def test_flood_of_launches_in_a_minute_gets_one_place_of_a_list_with_proven_titles() -> None:
    catalog = launched([1, 2, 3, 3, 3, 3, 4])
    assert select(catalog, [1, 2, 9, 8, 7, 6, 3], 4, 2, old=2) == [2, 6, 1, 0]


def test_launches_beyond_the_quota_have_no_more_places() -> None:
    catalog = launched([1, 2] + [3] * (MAX_PER_MINUTE + 10))
    rest = list(range(len(catalog) - 2))
    assert select(catalog, [2, 1, *(100 + n for n in rest)], 3, 1, old=2) == [len(catalog) - 1, rest[-11] + 2, 0]


def test_catalog_without_events_fills_whole_lists() -> None:
    assert select(launched([1] * 6), [6, 5, 4, 3, 2, 1], 5, 1) == [0, 1, 2, 3, 4]


def test_title_that_only_events_brought_is_no_new_title() -> None:
    catalog = launched([0])
    row = catalog.ensure_row("only events", 1)
    assert not len(new_candidates(catalog, find_new_titles(catalog), np.array([row])).index_M)


def test_slots_that_would_stay_empty_go_to_more_titles_of_a_minute() -> None:
    catalog = launched([0, 0, 1, 1, 1, 1])  # two old titles
    assert select(catalog, [9, 8, 7, 6, 5, 4], 5, 3, old=2) == [0, 1, 2, 3, 4]


def test_list_has_one_of_new_titles_with_near_identical_texts() -> None:
    text_ME = np.eye(D_TEXT, dtype=np.float32)[[0, 1, 1, 1, 2]]
    text_ME[2, 5] = 0.1
    text_ME /= np.linalg.norm(text_ME, axis=1, keepdims=True)
    catalog = launched([1, 2, 3, 4, 5], text_ME)
    assert select(catalog, [5, 4, 3, 2, 1], 5, 5) == [0, 1, 4]
    assert select(catalog, [5, 4, 3, 2, 1], 5, 5, old=4) == [0, 1, 2, 3, 4]  # proven titles may have any text


def test_evicted_title_of_a_stored_list_is_no_new_title() -> None:
    catalog = launched([0, 1])
    rows_C, score_C = np.array([-1, 0]), np.array([2, 1], np.float32)
    new = new_candidates(catalog, find_new_titles(catalog), rows_C)
    assert select_titles(new, score_C, 2, 1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("new", "size", "slots", "chosen"),
    [
        ("......", 3, 0, "abc"),
        ("...xxx", 3, 0, "abc"),
        ("...xxx", 3, 1, "abd"),
        ("...xxx", 4, 2, "abde"),
        ("x..x.x", 3, 1, "abd"),  # a new title that is listed anyway fills no slot
        (".....x", 4, 2, "abcf"),
        ("......", 4, 2, "abcd"),
        ("x.x.x.", 9, 2, "abcdef"),
    ],
)
def test_select_top_reserves_slots_for_new_titles(new: str, size: int, slots: int, chosen: str) -> None:
    names = "fedcba"  # in ascending order of score
    score_C = np.array(["fedcba".index(name) for name in names], np.float32)
    new_C = np.array([new["abcdef".index(name)] == "x" for name in names])
    assert "".join(names[i] for i in select_top(score_C, new_C, size, slots)) == chosen
