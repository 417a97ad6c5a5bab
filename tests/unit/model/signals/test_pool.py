"""A title joins the pool once; titles beyond its bound are ignored; removing titles leaves no trace."""

import numpy as np

from model.signals.pool import MAX_REACHED, NO_SLOT, Pool, add_rows, begin, new_pool, slot_of, truncate


def rows_of(pool: Pool) -> list[int]:
    found: list[int] = pool.row_P[: pool.size_1[0]].tolist()
    return found


def test_title_gets_one_slot_with_sums_of_zero() -> None:
    pool = new_pool(10)
    pool.summed_PF[:], pool.mark_P[:] = 7, 1  # of an earlier query
    assert [slot_of(pool, row) for row in (4, 9, 4, 0)] == [0, 1, 0, 2]
    assert rows_of(pool) == [4, 9, 0]
    assert not pool.summed_PF[:3].any()
    assert not pool.mark_P[:3].any()
    add_rows(pool, np.array([9, 1]))
    assert rows_of(pool) == [4, 9, 0, 1]


def test_removed_titles_join_again() -> None:
    pool = new_pool(10)
    add_rows(pool, np.array([4, 9, 0]))
    truncate(pool, 1)
    assert rows_of(pool) == [4]
    assert pool.slot_V.tolist() == [0 if row == 4 else NO_SLOT for row in range(10)]
    add_rows(pool, np.array([0]))
    assert rows_of(pool) == [4, 0]
    truncate(pool, 0)
    assert (pool.slot_V == NO_SLOT).all()


def test_reached_titles_beyond_the_limit_are_left_out_and_others_can_still_join() -> None:
    pool = new_pool(MAX_REACHED + 10)
    begin(pool)
    for row in range(MAX_REACHED + 2):
        unread = slot_of(pool, row)
    assert unread == pool.size_1[0] == MAX_REACHED
    assert (pool.slot_V[MAX_REACHED:] == NO_SLOT).all()
    pool.summed_PF[unread] = 1.0
    add_rows(pool, np.array([MAX_REACHED + 5, 3]))
    assert pool.slot_V[MAX_REACHED + 5] == MAX_REACHED
    assert not pool.summed_PF[MAX_REACHED].any()
    assert pool.slot_V[3] == 3
