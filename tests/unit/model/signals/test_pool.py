"""A title joins the pool once; titles beyond its bound are ignored; removing titles leaves no trace."""

import numpy as np
import pytest

from model.signals import pool as module
from model.signals.pool import NO_SLOT, Pool, add_rows, new_pool, slot_of, truncate


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


def test_full_pool_ignores_further_titles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POOL", 3)
    pool = new_pool(10)
    add_rows(pool, np.array([5, 6, 7, 8, 9]))
    assert rows_of(pool) == [5, 6, 7]
    unread = slot_of(pool, 8)
    assert unread == 3
    pool.summed_PF[unread] = 1.0
    assert pool.slot_V[8] == NO_SLOT
    assert slot_of(pool, 6) == 1
