"""Paired intervals by user: known answers, and what a wrong unit of drawing would show."""

import numpy as np
import pytest

from model.metrics import bootstrap
from model.metrics.bootstrap import difference, interval


def test_the_interval_of_independent_values_is_the_normal_one() -> None:
    value_N = np.random.default_rng(1).normal(0.5, 2.0, 4000)
    found = interval(value_N, np.arange(4000))
    assert found is not None
    assert found.mean == pytest.approx(value_N.mean())
    width = 1.96 * value_N.std() / np.sqrt(4000)
    assert found.low == pytest.approx(found.mean - width, abs=0.1 * width)
    assert found.high == pytest.approx(found.mean + width, abs=0.1 * width)
    assert found[3:] == (4000, 4000)


def test_events_of_one_user_that_are_all_alike_count_as_one() -> None:
    once_U = np.random.default_rng(2).normal(0.0, 1.0, 50)
    once, often = interval(once_U, np.arange(50)), interval(np.repeat(once_U, 40), np.repeat(np.arange(50), 40))
    assert once is not None
    assert often is not None
    assert often[:3] == pytest.approx(once[:3])  # as if each user had been asked once
    assert (often.events, often.users) == (2000, 50)


def test_users_with_many_events_weigh_more() -> None:
    value_N, user_N = np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"])
    found = interval(value_N, user_N, draws=4000)
    assert found is not None
    assert found[:3] == (0.75, 0.0, 1.0)  # a quarter of the draws is b twice, another a twice


def test_a_difference_that_everybody_shares_has_no_width() -> None:
    found = difference(np.array([1.0, 2.0, 4.0]), np.array([2.0, np.inf, np.inf]), np.array([7, 8, 9]))
    assert found is not None
    assert found.mean == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    same = difference(np.full(9, 2.0), np.full(9, 4.0), np.arange(9))
    assert same == (0.25, 0.25, 0.25, 9, 9)


def test_many_users_are_drawn_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    value_N = np.random.default_rng(3).normal(size=300)
    whole = interval(value_N, np.arange(300), draws=100, seed=5)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 2100)  # seven draws at once
    assert interval(value_N, np.arange(300), draws=100, seed=5) == pytest.approx(whole)
    assert interval(value_N, np.arange(300), draws=100, seed=6) != pytest.approx(whole)


def test_of_nothing_there_is_no_interval() -> None:
    assert interval(np.zeros(0), np.zeros(0, np.int64)) is None
