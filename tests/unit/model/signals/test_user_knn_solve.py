"""The solver of the ridge votes, compared with an exact solver."""

import numpy as np
import pytest

from model.signals.user_knn import RIDGE_PENALTY, RIDGE_USERS, _solve


@pytest.mark.parametrize("size", [0, 1, 5, RIDGE_USERS])
@pytest.mark.parametrize("similarity", [0.0, 0.5, 0.999])
def test_solve_is_exact_to_the_rounding_of_float32(size: int, similarity: float) -> None:
    """Cosines of random vectors that share a part; with 0.999 all users are nearly equal."""
    random = np.random.default_rng(size)
    vectors = (1 - similarity) * random.normal(size=(size, 200)) + similarity * random.normal(size=200)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kernel_AA = vectors @ vectors.T + RIDGE_PENALTY * np.eye(size)
    target_A = random.normal(size=size)
    exact_A = np.linalg.solve(kernel_AA, target_A)
    solved_A = _solve(kernel_AA.astype(np.float32), target_A.astype(np.float32))
    np.testing.assert_allclose(solved_A, exact_A, rtol=0, atol=2e-5 * np.abs(exact_A).max(initial=0))
