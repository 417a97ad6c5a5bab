"""The result of the ridge votes' Gauss-Seidel sweeps in closed form, without a loop like the solver's."""

import numpy as np
from numpy.typing import NDArray

from model.signals.user_knn import GAUSS_SEIDEL_SWEEPS


def gauss_seidel(kernel_AA: NDArray[np.float64], target_A: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the result of `GAUSS_SEIDEL_SWEEPS` sweeps from 0 for K x = y.

    With K = L + U, where L is the lower triangle with the diagonal, a sweep multiplies the error by M = -L^-1 U. The
    initial error is -x for the exact solution x, so the result is x - M^sweeps x. The solver differs from it only by
    float32 rounding (measured: 2e-7).
    """
    exact_A = np.linalg.solve(kernel_AA, target_A)
    sweep_AA = -np.linalg.solve(np.tril(kernel_AA), np.triu(kernel_AA, 1))
    result_A: NDArray[np.float64] = exact_A - np.linalg.matrix_power(sweep_AA, GAUSS_SEIDEL_SWEEPS) @ exact_A
    return result_A
