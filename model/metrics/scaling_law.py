"""Scaling laws of quality against backbone size: two least-squares fits with bootstrap intervals.

    offset law      P(N) = P0 - (N / N0)^-a,  a > 0     quality saturates at P0
    log-linear law  P(N) = c + s ln N                   each doubling gains the same

For a fixed exponent the offset law is linear in P0 and b = N0^a, b >= 0. Only the exponent is searched, on the grid
EXPONENTS. At the lower end of the grid the offset law is nearly log-linear and P0 is far above the data: the data then
show no saturation. A curve that does not grow has b = 0 and no exponent, and its P0 is the mean.
The offset law has a third constant, so it fits any data about as well as the log-linear law. The report therefore adds
the leave-one-out error: the error at each size of a fit to the other sizes.
Sources: arXiv 2605.23312 (both laws; N excludes embeddings and output head); the intervals resample whole users, see
`model.metrics.bootstrap`.

Only here: S sizes · D bootstrap resamples · A exponents · K numbers of parameters, or training runs of one size
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.metrics.bootstrap import CONFIDENCE_LEVEL

MIN_SIZES: Final = 5  # for a fit of three constants
EXPONENTS: Final = np.geomspace(0.02, 4, 1500)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OffsetLaw:
    """Offset-law fits, one per resample.

    b is stored relative to `middle`, the geometric mean of the sizes, where it has the order of magnitude of P.
    """

    p0_D: Floats
    exponent_D: Floats  # NaN if quality does not grow
    b_D: Floats  # coefficient of (N / middle)^-a
    middle: float

    def at(self, n_K: Floats) -> Floats:
        """Predicted quality p_DK."""
        return self.p0_D[:, None] - self.remaining_gain(n_K)

    def doubling(self, n_K: Floats) -> Floats:
        """gain_DK of doubling the number of parameters."""
        return self.remaining_gain(n_K) - self.remaining_gain(2 * n_K)

    def n0_D(self) -> Floats:
        """N0; NaN if quality does not grow."""
        return self.middle * self.b_D ** (1 / self.exponent_D)

    def at_lower_bound_D(self) -> NDArray[np.bool_]:
        """Whether the exponent is the smallest on the grid: no saturation visible."""
        return np.asarray(self.exponent_D <= EXPONENTS[0])

    def remaining_gain(self, n_K: Floats) -> Floats:
        """gain_DK of unlimited growth beyond N: P0 - P(N)."""
        flat_D = np.isnan(self.exponent_D)
        gain_DK = self.b_D[:, None] * (n_K / self.middle) ** -np.where(flat_D, 1.0, self.exponent_D)[:, None]
        return np.where(flat_D[:, None], 0.0, gain_DK)


@dataclass(frozen=True)
class LogLinearLaw:
    """Log-linear fits, one per resample."""

    c_D: Floats  # quality at `middle`
    slope_D: Floats  # gain per factor of e
    middle: float

    def at(self, n_K: Floats) -> Floats:
        """Predicted quality p_DK."""
        return self.c_D[:, None] + self.slope_D[:, None] * np.log(n_K / self.middle)


Law = OffsetLaw | LogLinearLaw


def fit_offset_law(n_S: Floats, p_DS: Floats) -> OffsetLaw:
    """The least-squares offset law of each resample."""
    middle = float(np.exp(np.log(n_S).mean()))
    power_AS = (n_S / middle) ** -EXPONENTS[:, None]
    mean_power_A = power_AS.mean(1)
    centered_AS = power_AS - mean_power_A[:, None]
    square_A = (centered_AS**2).sum(1)
    mean_D = p_DS.mean(1)
    projection_DA = np.maximum(-(p_DS - mean_D[:, None]) @ centered_AS.T, 0)
    best_D = (projection_DA**2 / square_A).argmax(1)  # the exponent that reduces the squared error most
    b_D = projection_DA[np.arange(len(p_DS)), best_D] / square_A[best_D]
    exponent_D = np.where(b_D > 0, EXPONENTS[best_D], np.nan)
    return OffsetLaw(mean_D + b_D * mean_power_A[best_D], exponent_D, b_D, middle)


def fit_log_linear_law(n_S: Floats, p_DS: Floats) -> LogLinearLaw:
    """The least-squares log-linear law of each resample."""
    middle = float(np.exp(np.log(n_S).mean()))
    log_S = np.log(n_S / middle)
    return LogLinearLaw(p_DS.mean(1), p_DS @ log_S / (log_S @ log_S), middle)


LAWS: Final[dict[str, Callable[[Floats, Floats], Law]]] = {"offset": fit_offset_law, "log-linear": fit_log_linear_law}


def rmse(law: Law, n_S: Floats, p_S: Floats) -> float:
    """Root mean squared error of a single fit at the points."""
    return float(np.sqrt(((law.at(n_S)[0] - p_S) ** 2).mean()))


def leave_one_out_rmse(fit: Callable[[Floats, Floats], Law], n_S: Floats, p_S: Floats) -> float:
    """RMSE over the sizes, each predicted by a fit to the other sizes.

    The smallest size is left out: the offset law falls steeply below the sizes that it was fitted to.
    """
    errors = []
    for k in range(1, len(n_S)):
        others = np.arange(len(n_S)) != k
        law = fit(n_S[others], p_S[None, others])
        errors.append(float(law.at(n_S[k : k + 1])[0, 0] - p_S[k]))
    return float(np.sqrt(np.mean(np.square(errors))))


def fit_laws(n_S: Floats, p_S: Floats, p_DS: Floats) -> dict[str, Any]:
    """Fits to the points p_S with bootstrap intervals from p_DS: constants, errors of both laws, gains of doubling.

    The gain of doubling each size comes from the offset law. P0 varies with how predictable the resampled users are; a
    gain does not. P0 and N0 are None if the fit shows no saturation. The upper bound of P0 is None if more resamples
    than the upper tail holds show none.
    """
    assert len(n_S) >= MIN_SIZES
    fits = {name: fit(n_S, p_S[None]) for name, fit in LAWS.items()}
    point, drawn = fit_offset_law(n_S, p_S[None]), fit_offset_law(n_S, p_DS)
    at_lower_bound = float(drawn.at_lower_bound_D().mean())
    tails = (1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(drawn.p0_D, tails).tolist()
    gain_2S = np.quantile(drawn.doubling(n_S), tails, axis=0)
    gains = zip(point.doubling(n_S)[0].tolist(), *gain_2S.tolist(), strict=True)
    a, n0 = float(point.exponent_D[0]), float(point.n0_D()[0])
    grows, saturates = not np.isnan(a), not point.at_lower_bound_D()[0]
    return {
        "p0": {
            "fit": float(point.p0_D[0]) if saturates else None,
            "low": low,
            "high": None if at_lower_bound > tails[0] else high,
        },
        "a": a if grows else None,
        "n0": n0 if grows and saturates else None,
        "at_lower_bound": at_lower_bound,
        "rmse": {name: rmse(fit, n_S, p_S) for name, fit in fits.items()},
        "leave_one_out_rmse": {name: leave_one_out_rmse(fit, n_S, p_S) for name, fit in LAWS.items()},
        "doubling": [dict(zip(("mean", "low", "high"), gain, strict=True)) for gain in gains],
    }


def resample_seeds(p_DSK: Floats, seed: int = 0) -> Floats:
    """p_DS: the mean over K runs that differ only in their seed, with the runs resampled for each resample and size.

    The spread of a mean of K draws out of K is too small by a factor of sqrt((K - 1) / K), which is corrected. A single
    run gives no information about seeds and is returned as it is.
    """
    mean_DS, runs = p_DSK.mean(2), p_DSK.shape[2]
    if runs == 1:
        return np.asarray(mean_DS)
    drawn_DSK = np.random.default_rng(seed).integers(0, runs, p_DSK.shape)
    deviation_DS = np.take_along_axis(p_DSK, drawn_DSK, 2).mean(2) - mean_DS
    p_DS: Floats = mean_DS + deviation_DS * (runs / (runs - 1)) ** 0.5
    return p_DS
