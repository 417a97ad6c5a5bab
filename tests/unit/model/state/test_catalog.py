"""The catalogue: rows appear with ids, are given up by the least recently seen, and a new owner begins at nothing."""

from typing import Final

import numpy as np
import pytest

from model.state.catalog import NEVER, UNKNOWN, Catalog, genre_codes
from tests.support.learner import D_TEXT, differences, directions

TEXT = directions(np.random.default_rng(1), 60)

MOVIELENS: Final = [
    *("Action", "Adventure", "Animation", "Children", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "IMAX", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]


def catalog(titles: int, capacity: int = 4) -> Catalog:
    made = Catalog(D_TEXT, capacity)
    for n in range(titles):
        made.launch(made.row(f"t{n}", n + 1), TEXT[n], ["drama"], 2000 + n, 10**12, n + 1)
    made.update_text_neighbors(range(titles))
    return made


def test_ids_get_rows_as_they_come_and_keep_them_while_room_grows() -> None:
    made = catalog(11)
    assert made.find([f"t{n}" for n in range(11)]).tolist() == list(range(11))
    assert len(made) == 11 <= made.capacity
    assert (made.semantic_VS[:11] == TEXT[:11]).all()
    assert made.born_V[:11].tolist() == list(range(1, 12))
    assert (made.born_V[11:] == NEVER).all()
    assert len(made.text_neighbors.to_VK) == made.capacity


def test_looking_up_makes_no_row() -> None:
    made = catalog(3)
    before = made.state_dict()
    assert made.find(["t1", "unknown"]).tolist() == [1, -1]
    assert differences(made.state_dict(), before) == []


def test_a_title_is_a_candidate_from_its_launch_to_its_withdrawal() -> None:
    made = Catalog(D_TEXT)
    row = made.row("t", 4)
    assert made.born_V[row] == NEVER  # an event came before the launch
    made.launch(row, TEXT[0], ["a"], None, None, 7)
    made.launch(row, TEXT[1], ["b"], 1999, 5, 9)
    assert made.born_V[row] == 7  # a relaunch is no birth
    assert (made.semantic_VS[row] == TEXT[1]).all()
    assert (made.year_V[row], made.released_V[row]) == (1999, 5)
    made.withdraw(row)
    assert made.born_V[row] == NEVER
    made.launch(row, None, [], None, None, 12)
    assert made.born_V[row] == 12
    assert not made.semantic_VS[row].any()
    assert np.isnan(made.year_V[row])
    assert made.released_V[row] == UNKNOWN


def test_the_least_recently_seen_go_and_some_more_so_that_not_every_batch_evicts() -> None:
    made = catalog(60)
    made.row("t0", 100)  # seen again
    assert made.least_recent(60).tolist() == []
    assert made.least_recent(55).tolist() == [1, 2, 3, 4, 5, 6]
    made.evict(made.least_recent(50))
    assert len(made.rows) == 49
    assert made.least_recent(50).tolist() == []


def test_a_row_that_is_taken_over_remembers_nothing_of_its_last_title() -> None:
    made = catalog(40)
    made.count_V[:40] = 3
    made.evict(np.array([5, 9]))
    assert made.find(["t5", "t9"]).tolist() == [-1, -1]
    rows = [made.row(title, 50) for title in ("new a", "new b")]
    assert sorted(rows) == [5, 9]
    for row in rows:
        assert not made.semantic_VS[row].any()
        assert (made.born_V[row], made.count_V[row], made.released_V[row]) == (NEVER, 0, UNKNOWN)
        assert np.isnan(made.year_V[row])
        assert (made.genres_VG[row] == -1).all()
        assert not (made.text_neighbors.to_VK == row).any()
    assert len(made) == 40
    assert [made.ids[row] for row in rows] == ["new a", "new b"]


def test_genres_are_the_same_numbers_everywhere() -> None:
    codes = genre_codes(["Drama", " drama ", "Sci-Fi"])
    assert codes.tolist() == [*genre_codes(["drama"])[:1].tolist(), *genre_codes(["sci-fi"])[:1].tolist(), *[-1] * 4]
    assert codes[:2].tolist() == [178, 49]  # Python's own hash would differ in the next process
    assert (genre_codes([f"g{n}" for n in range(20)]) >= 0).all()
    assert genre_codes([]).tolist() == [-1] * 6


def test_usual_genres_are_told_apart() -> None:
    names = [*MOVIELENS, "Family", "History", "Music", "Anime", "Reality", "News", "Soap", "Sport", "Biography"]
    assert len({int(genre_codes([name])[0]) for name in names}) == len(names)


@pytest.mark.parametrize("titles", [3, 30])
def test_a_restart_changes_nothing_that_follows(titles: int) -> None:
    one, other = catalog(titles), Catalog(D_TEXT, 4)
    one.evict(np.array([0, 2]))
    state = one.state_dict()
    other.load_state_dict(state)
    for made in (one, other):
        for n in range(40):
            made.launch(made.row(f"new{n}", 100 + n), TEXT[n], ["a", "b"], 1990, None, 100 + n)
        made.update_text_neighbors([made.rows[f"new{n}"] for n in range(40)])
        made.evict(made.least_recent(20))
    assert differences(other.state_dict(), one.state_dict()) == []
    assert one.capacity == other.capacity
