"""Tests of the catalog: rows of new titles, launch and withdrawal, eviction, genre codes and restarts."""

from typing import Final

import numpy as np
import pytest

from model.state.catalog import NOT_LAUNCHED, UNKNOWN_DATE, Catalog, genre_codes
from tests.support.learner import D_TEXT, random_unit_vectors, state_differences

TEXT = random_unit_vectors(np.random.default_rng(1), 60)

MOVIELENS: Final = [
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "IMAX", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]


def catalog_of(titles: int, capacity: int = 4) -> Catalog:
    catalog = Catalog(D_TEXT, capacity)
    for n in range(titles):
        catalog.launch(catalog.ensure_row(f"t{n}", n + 1), TEXT[n], ["drama"], 2000 + n, 10**12, n + 1)
    catalog.update_texts(range(titles), np.arange(titles))
    return catalog


def test_titles_keep_their_rows_while_capacity_grows() -> None:
    catalog = catalog_of(11)
    assert catalog.rows_of([f"t{n}" for n in range(11)]).tolist() == list(range(11))
    assert len(catalog) == 11 <= catalog.capacity
    assert (catalog.semantic_VE[:11] == TEXT[:11]).all()
    assert catalog.launch_sequence_V[:11].tolist() == list(range(1, 12))
    assert (catalog.launch_sequence_V[11:] == NOT_LAUNCHED).all()
    assert len(catalog.text_neighbors.to_VK) == catalog.capacity


def test_lookup_adds_no_row() -> None:
    catalog = catalog_of(3)
    before = catalog.state_dict()
    assert catalog.rows_of(["t1", "unknown"]).tolist() == [1, -1]
    assert state_differences(catalog.state_dict(), before) == []


def test_title_is_candidate_from_launch_to_withdrawal() -> None:
    catalog = Catalog(D_TEXT)
    row = catalog.ensure_row("t", 4)
    assert catalog.launch_sequence_V[row] == NOT_LAUNCHED  # an event before the launch
    catalog.launch(row, TEXT[0], ["a"], None, None, 7)
    catalog.launch(row, TEXT[1], ["b"], 1999, 5, 9)
    assert catalog.launch_sequence_V[row] == 7  # a relaunch keeps the first launch
    assert (catalog.semantic_VE[row] == TEXT[1]).all()
    assert (catalog.year_V[row], catalog.released_V[row]) == (1999, 5)
    catalog.withdraw(row)
    assert catalog.launch_sequence_V[row] == NOT_LAUNCHED
    catalog.launch(row, None, [], None, None, 12)
    assert catalog.launch_sequence_V[row] == 12
    assert not catalog.semantic_VE[row].any()
    assert np.isnan(catalog.year_V[row])
    assert catalog.released_V[row] == UNKNOWN_DATE


def test_least_recently_used_titles_are_evicted_with_slack() -> None:
    catalog = catalog_of(60)
    catalog.ensure_row("t0", 100)  # used again
    assert catalog.rows_to_evict(60).tolist() == []
    assert catalog.rows_to_evict(55).tolist() == [1, 2, 3, 4, 5, 6]
    catalog.evict(catalog.rows_to_evict(50))
    assert len(catalog.rows) == 49
    assert catalog.rows_to_evict(50).tolist() == []


def test_titles_that_never_launched_are_evicted_first() -> None:
    catalog = catalog_of(52)
    catalog.withdraw(3)  # it launched once
    rows = [catalog.ensure_row(f"unlaunched {n}", 100 + n) for n in range(8)]
    assert catalog.rows_to_evict(54).tolist() == rows[:7]  # with a slack of one
    assert catalog.rows_to_evict(52).tolist() == rows  # no slack at the cost of launched titles
    assert catalog.rows_to_evict(51).tolist() == [0, 1, *rows]
    catalog.evict(np.array(rows))
    assert catalog.rows_to_evict(52).tolist() == []
    assert not catalog.launched_V[rows].any()


def test_reused_row_keeps_nothing_of_evicted_title() -> None:
    catalog = catalog_of(40)
    catalog.count_V[:40] = 3
    catalog.evict(np.array([5, 9]))
    assert catalog.rows_of(["t5", "t9"]).tolist() == [-1, -1]
    rows = [catalog.ensure_row(title, 50) for title in ("new a", "new b")]
    assert sorted(rows) == [5, 9]
    for row in rows:
        assert not catalog.semantic_VE[row].any()
        assert (catalog.launch_sequence_V[row], catalog.count_V[row], catalog.released_V[row]) == (
            NOT_LAUNCHED,
            0,
            UNKNOWN_DATE,
        )
        assert np.isnan(catalog.year_V[row])
        assert (catalog.genres_VG[row] == -1).all()
        assert not (catalog.text_neighbors.to_VK == row).any()
    assert len(catalog) == 40
    assert [catalog.ids[row] for row in rows] == ["new a", "new b"]


def test_genre_codes_do_not_depend_on_the_process() -> None:
    codes = genre_codes(["Drama", " drama ", "Sci-Fi"])
    assert codes.tolist() == [*genre_codes(["drama"])[:1].tolist(), *genre_codes(["sci-fi"])[:1].tolist(), *[-1] * 4]
    assert codes[:2].tolist() == [178, 49]  # Python's own hash would differ between processes
    assert (genre_codes([f"g{n}" for n in range(20)]) >= 0).all()
    assert genre_codes([]).tolist() == [-1] * 6


def test_common_genres_have_distinct_codes() -> None:
    names = [*MOVIELENS, "Family", "History", "Music", "Anime", "Reality", "News", "Soap", "Sport", "Biography"]
    assert len({int(genre_codes([name])[0]) for name in names}) == len(names)


@pytest.mark.parametrize("titles", [3, 30])
def test_restart_changes_nothing_that_follows(titles: int) -> None:
    original, restored = catalog_of(titles), Catalog(D_TEXT, 4)
    original.evict(np.array([0, 2]))
    state = original.state_dict()
    restored.load_state_dict(state)
    for catalog in (original, restored):
        for n in range(40):
            catalog.launch(catalog.ensure_row(f"new{n}", 100 + n), TEXT[n], ["a", "b"], 1990, None, 100 + n)
        rows = [catalog.rows[f"new{n}"] for n in range(40)]
        catalog.update_texts(rows, np.array(sorted(rows)[::2]))
        catalog.evict(catalog.rows_to_evict(20))
    assert state_differences(restored.state_dict(), original.state_dict()) == []
    assert original.capacity == restored.capacity
