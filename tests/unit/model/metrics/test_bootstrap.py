"""Bootstrap confidence intervals over users: known answers, also where resampling events would be wrong."""

import numpy as np
import pytest

from model.metrics import bootstrap
from model.metrics.bootstrap import confidence_interval, mrr_difference


def test_interval_of_independent_values_is_normal() -> None:
    value_N = np.random.default_rng(1).normal(0.5, 2.0, 4000)
    found = confidence_interval(value_N, np.arange(4000))
    assert found is not None
    assert found.mean == pytest.approx(value_N.mean())
    width = 1.96 * value_N.std() / np.sqrt(4000)
    assert found.low == pytest.approx(found.mean - width, abs=0.1 * width)
    assert found.high == pytest.approx(found.mean + width, abs=0.1 * width)
    assert found[3:] == (4000, 4000)


def test_identical_events_of_a_user_count_as_one() -> None:
    once_U = np.random.default_rng(2).normal(0.0, 1.0, 50)
    once, often = (
        confidence_interval(once_U, np.arange(50)),
        confidence_interval(np.repeat(once_U, 40), np.repeat(np.arange(50), 40)),
    )
    assert once is not None
    assert often is not None
    assert often[:3] == pytest.approx(once[:3])  # as if each user had one event
    assert (often.events, often.users) == (2000, 50)


def test_users_with_more_events_weigh_more() -> None:
    value_N, user_N = np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"])
    found = confidence_interval(value_N, user_N, resamples=4000)
    assert found is not None
    assert found[:3] == (0.75, 0.0, 1.0)  # a quarter of the resamples is b twice, another a twice


def test_constant_difference_has_zero_width() -> None:
    found = mrr_difference(np.array([1.0, 2.0, 4.0]), np.array([2.0, np.inf, np.inf]), np.array([7, 8, 9]))
    assert found is not None
    assert found.mean == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    same = mrr_difference(np.full(9, 2.0), np.full(9, 4.0), np.arange(9))
    assert same == (0.25, 0.25, 0.25, 9, 9)


def test_resampling_in_parts_gives_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    value_N = np.random.default_rng(3).normal(size=300)
    at_once = confidence_interval(value_N, np.arange(300), resamples=100, seed=5)
    monkeypatch.setattr(bootstrap, "_MAX_COUNTS", 2100)  # seven resamples per part
    assert confidence_interval(value_N, np.arange(300), resamples=100, seed=5) == pytest.approx(at_once)
    assert confidence_interval(value_N, np.arange(300), resamples=100, seed=6) != pytest.approx(at_once)


def test_interval_without_events_is_none() -> None:
    assert confidence_interval(np.zeros(0), np.zeros(0, np.int64)) is None
