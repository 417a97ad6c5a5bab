"""How quality grows with the size of a backbone: two laws, fitted by least squares, and what chance leaves of them.

    offset law      P(N) = P0 - (N / N0)^-a,  a > 0     no size passes P0: growing pays less and less
    log-linear law  P(N) = c + s ln N                   each doubling pays as much as the one before

For a set exponent the offset law is linear in P0 and b = N0^a, b >= 0, so that only the exponent is searched, among
EXPONENTS. Its lower end is nearly the other law, with a P0 as far away as the end is near 0: there the data show no
end. A curve that does not grow has b = 0 and no exponent, and P0 is its mean.
The offset law's third constant lets it come about as near as the other on any data at the least, so beside the error
of the fit stands that at each size by a fit to the others.
Sources: arXiv 2605.23312 (both laws; N without embeddings and decoder); draws are of whole users, as in `model.metrics.bootstrap`.

S sizes · D draws · A exponents · K any numbers of parameters, or runs of a size
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.metrics.bootstrap import LEVEL

FEWEST: Final = 5  # sizes that three constants want
EXPONENTS: Final = np.geomspace(0.02, 4, 1500)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Offset:
    """One fit a draw. `middle`: the N at which b is told, in the midst of the sizes, for there it is of P's order."""

    p0_D: Floats
    exponent_D: Floats  # NaN: does not grow
    b_D: Floats  # of (N / middle)^-a
    middle: float

    def at(self, n_K: Floats) -> Floats:
        """p_DK."""
        return self.p0_D[:, None] - self.left(n_K)

    def doubling(self, n_K: Floats) -> Floats:
        """gain_DK of twice as many parameters."""
        return self.left(n_K) - self.left(2 * n_K)

    def n0_D(self) -> Floats:
        """N0, NaN where nothing grows."""
        return self.middle * self.b_D ** (1 / self.exponent_D)

    def endless_D(self) -> NDArray[np.bool_]:
        """Whether the exponent is the least there is."""
        return np.asarray(self.exponent_D <= EXPONENTS[0])

    def left(self, n_K: Floats) -> Floats:
        """gain_DK of all growth beyond N, P0 less P(N)."""
        flat_D = np.isnan(self.exponent_D)
        left_DK = self.b_D[:, None] * (n_K / self.middle) ** -np.where(flat_D, 1.0, self.exponent_D)[:, None]
        return np.where(flat_D[:, None], 0.0, left_DK)


@dataclass(frozen=True)
class LogLinear:
    """One fit a draw."""

    c_D: Floats  # at `middle`
    slope_D: Floats  # a factor of e
    middle: float

    def at(self, n_K: Floats) -> Floats:
        """p_DK."""
        return self.c_D[:, None] + self.slope_D[:, None] * np.log(n_K / self.middle)


Law = Offset | LogLinear


def offset(n_S: Floats, p_DS: Floats) -> Offset:
    """The offset law that comes nearest, for each draw."""
    middle = float(np.exp(np.log(n_S).mean()))
    fall_AS = (n_S / middle) ** -EXPONENTS[:, None]
    fall_A = fall_AS.mean(1)
    centred_AS = fall_AS - fall_A[:, None]
    square_A = (centred_AS**2).sum(1)
    mean_D = p_DS.mean(1)
    along_DA = np.maximum(-(p_DS - mean_D[:, None]) @ centred_AS.T, 0)
    best_D = (along_DA**2 / square_A).argmax(1)  # what takes most off the sum of squares
    b_D = along_DA[np.arange(len(p_DS)), best_D] / square_A[best_D]
    exponent_D = np.where(b_D > 0, EXPONENTS[best_D], np.nan)
    return Offset(mean_D + b_D * fall_A[best_D], exponent_D, b_D, middle)


def log_linear(n_S: Floats, p_DS: Floats) -> LogLinear:
    """The log-linear law that comes nearest, for each draw."""
    middle = float(np.exp(np.log(n_S).mean()))
    log_S = np.log(n_S / middle)
    return LogLinear(p_DS.mean(1), p_DS @ log_S / (log_S @ log_S), middle)


LAWS: Final[dict[str, Callable[[Floats, Floats], Law]]] = {"offset": offset, "log-linear": log_linear}


def rmse(law: Law, n_S: Floats, p_S: Floats) -> float:
    """How far a single fit stays from the points."""
    return float(np.sqrt(((law.at(n_S)[0] - p_S) ** 2).mean()))


def left_out(fit: Callable[[Floats, Floats], Law], n_S: Floats, p_S: Floats) -> float:
    """The same at each size by a fit to the others; not at the smallest, for below all others the offset law dives."""
    missed = []
    for k in range(1, len(n_S)):
        others = np.arange(len(n_S)) != k
        law = fit(n_S[others], p_S[None, others])
        missed.append(float(law.at(n_S[k : k + 1])[0, 0] - p_S[k]))
    return float(np.sqrt(np.mean(np.square(missed))))


def law(n_S: Floats, p_S: Floats, p_DS: Floats) -> dict[str, Any]:
    """What the points p_S say, with intervals by the draws p_DS: the constants, both laws' errors, and at each size the
    gain of doubling it by the offset law. P0 moves with how easy the drawn users are, a gain does not. P0 and N0 are
    None where the fit shows no end, and P0's upper bound where more draws than lie beyond it show none."""
    assert len(n_S) >= FEWEST
    fits = {name: fit(n_S, p_S[None]) for name, fit in LAWS.items()}
    point, drawn = offset(n_S, p_S[None]), offset(n_S, p_DS)
    endless = float(drawn.endless_D().mean())
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, high = np.quantile(drawn.p0_D, tails).tolist()
    gain_2S = np.quantile(drawn.doubling(n_S), tails, axis=0)
    gains = zip(point.doubling(n_S)[0].tolist(), *gain_2S.tolist(), strict=True)
    a, n0 = float(point.exponent_D[0]), float(point.n0_D()[0])
    grows, ends = not np.isnan(a), not point.endless_D()[0]
    return {
        "p0": {"fit": float(point.p0_D[0]) if ends else None, "low": low, "high": None if endless > tails[0] else high},
        "a": a if grows else None,
        "n0": n0 if grows and ends else None,
        "endless": endless,
        "rmse": {name: rmse(fit, n_S, p_S) for name, fit in fits.items()},
        "left_out": {name: left_out(fit, n_S, p_S) for name, fit in LAWS.items()},
        "doubling": [dict(zip(("mean", "low", "high"), gain, strict=True)) for gain in gains],
    }


def over_seeds(p_DSK: Floats, seed: int = 0) -> Floats:
    """p_DS: the mean over K runs that differ in their seed alone, K of them drawn again for each draw and size.

    A mean of K draws out of K strays too little by a factor of sqrt((K - 1) / K), which is made good; a single run says
    nothing of seeds.
    """
    mean_DS, runs = p_DSK.mean(2), p_DSK.shape[2]
    if runs == 1:
        return np.asarray(mean_DS)
    drawn_DSK = np.random.default_rng(seed).integers(0, runs, p_DSK.shape)
    strays_DS = np.take_along_axis(p_DSK, drawn_DSK, 2).mean(2) - mean_DS
    p_DS: Floats = mean_DS + strays_DS * (runs / (runs - 1)) ** 0.5
    return p_DS
