"""Scaling laws recover the constants of known curves, and their intervals cover them."""

from typing import Any

import numpy as np
import pytest

from model.metrics.scaling_law import Floats, fit_laws, resample_seeds
from tests.support.scaling import CURVE, LINE, N0, P0, A, N, drawn


def exact(p_S: Floats) -> dict[str, Any]:
    return fit_laws(N, p_S, np.stack([p_S, p_S]))


def test_offset_law_recovers_its_parameters() -> None:
    found = exact(CURVE)
    assert found["p0"]["fit"] == pytest.approx(P0, abs=5e-4)
    assert found["a"] == pytest.approx(A, rel=5e-3)
    assert found["n0"] == pytest.approx(N0, rel=2e-2)
    assert found["at_lower_bound"] == 0
    doubled = P0 - (2 * N / N0) ** -A
    assert [gain["mean"] for gain in found["doubling"]] == pytest.approx(doubled - CURVE, rel=1e-2)


def test_p0_interval_covers_truth_and_narrows_with_users() -> None:
    widths = []
    for users in (300, 30_000):
        found = fit_laws(N, *drawn(CURVE, users, 0.1))
        low, high = found["p0"]["low"], found["p0"]["high"]
        assert low < P0 < high
        widths.append(high - low)
    assert widths[1] < 0.3 * widths[0]


def test_saturating_and_log_linear_curves_are_distinguished() -> None:
    saturating, log_linear = exact(CURVE), exact(LINE)
    assert saturating["rmse"]["offset"] < 0.01 * saturating["rmse"]["log-linear"]
    assert saturating["leave_one_out_rmse"]["offset"] < 0.01 * saturating["leave_one_out_rmse"]["log-linear"]
    assert log_linear["rmse"]["log-linear"] < 1e-9
    assert log_linear["leave_one_out_rmse"]["log-linear"] < 1e-9 < log_linear["leave_one_out_rmse"]["offset"]
    assert (log_linear["p0"]["fit"], log_linear["p0"]["high"], log_linear["at_lower_bound"]) == (None, None, 1.0)


@pytest.mark.parametrize("p_S", [np.full(6, 0.25), np.linspace(0.3, 0.2, 6)])
def test_curve_without_growth_has_its_mean_as_p0(p_S: Floats) -> None:
    found = exact(p_S)
    assert found["p0"]["fit"] == pytest.approx(0.25)
    assert (found["a"], found["n0"]) == (None, None)
    assert all(gain["high"] == 0 for gain in found["doubling"])


def test_seed_variation_widens_the_resamples() -> None:
    runs_SK = np.random.default_rng(2).normal(0.3, 0.02, (6, 4))
    p_DS = resample_seeds(np.repeat(runs_SK[None], 4000, 0))
    assert p_DS.mean(0) == pytest.approx(runs_SK.mean(1), abs=1e-3)
    assert p_DS.std(0) == pytest.approx(runs_SK.std(1, ddof=1) / 2, rel=0.05)
    one_DSK = runs_SK[None, :, :1]
    assert np.array_equal(resample_seeds(one_DSK), one_DSK[..., 0])
