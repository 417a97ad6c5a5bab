"""The Gauss-Seidel solver of the ridge votes, compared with an exact solver."""

import numpy as np
import pytest

from model.signals.user_knn import RIDGE_USERS, _solve


@pytest.mark.parametrize("size", [1, 5, RIDGE_USERS])
def test_solve_is_exact_on_a_diagonally_dominant_kernel(size: int) -> None:
    """The other entries of a row add up to at most 1/4 of its diagonal, so a sweep leaves at most 1/4 of the largest
    error. 12 sweeps leave 1/4^12 = 6e-8, which is less than the rounding of float32."""
    random = np.random.default_rng(size)
    kernel_AA = random.uniform(-1, 1, (size, size))
    kernel_AA += kernel_AA.T
    np.fill_diagonal(kernel_AA, 0)
    np.fill_diagonal(kernel_AA, 1 + 4 * np.abs(kernel_AA).sum(1).max(initial=0))
    target_A = random.normal(size=size)
    exact_A = np.linalg.solve(kernel_AA, target_A)
    solved_A = _solve(kernel_AA.astype(np.float32), target_A.astype(np.float32))
    np.testing.assert_allclose(solved_A, exact_A, rtol=0, atol=1e-6 * np.abs(exact_A).max())
