"""The mean text follows launches and settled titles; centered texts equal a plain recomputation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.state import text_center as module
from model.state.text_center import PRIOR_TITLES, TextCenter
from tests.support.learner import random_unit_vectors

TITLES = 40


def plain(text_VE: NDArray[np.float32], settled_V: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The centered texts."""
    text, has_text = text_VE.astype(np.float64), text_VE.any(axis=1)
    weight_V = has_text * (settled_V + PRIOR_TITLES / has_text.sum())
    text = text - weight_V @ text / weight_V.sum()
    centered_VE: NDArray[np.float64] = text * (has_text / np.linalg.norm(text, axis=1))[:, None]
    return centered_VE


def filled(settled_V: NDArray[np.bool_]) -> tuple[TextCenter, NDArray[np.float32]]:
    text_VE = random_unit_vectors(np.random.default_rng(3), TITLES)
    text_VE[5] = 0
    center = TextCenter(text_VE.shape[1], TITLES)
    for text_E in text_VE:
        center.replace(np.zeros_like(text_E), text_E, settled=False)
    center.settle(text_VE[settled_V])
    center.update(text_VE, np.arange(TITLES))
    return center, text_VE


def test_centered_texts_equal_a_recomputation() -> None:
    settled_V = np.arange(TITLES) % 3 == 0
    center, text_VE = filled(settled_V)
    np.testing.assert_allclose(center.centered(text_VE, np.arange(TITLES)), plain(text_VE, settled_V), atol=1e-5)
    new_E = random_unit_vectors(np.random.default_rng(4), 1)[0]
    for row, text_E in ((3, new_E), (4, np.zeros_like(new_E)), (5, new_E)):  # changed, removed and added
        center.replace(text_VE[row], text_E, bool(settled_V[row]))
        text_VE[row] = text_E
    center.update(text_VE, np.array([3, 4, 5]))
    np.testing.assert_allclose(center.centered(text_VE, np.arange(TITLES)), plain(text_VE, settled_V), atol=1e-5)


def test_mean_in_a_large_catalog_is_taken_over_when_it_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    center, text_VE = filled(np.zeros(TITLES, bool))
    monkeypatch.setattr(module, "ALWAYS_CURRENT_TITLES", TITLES - 1)
    before_E = center.center_E.copy()
    center.settle(text_VE[:1])
    monkeypatch.setattr(module, "MAX_SHIFT", 10.0)
    center.update(text_VE, np.zeros(0, np.int64))
    assert (center.center_E == before_E).all()
    monkeypatch.setattr(module, "MAX_SHIFT", 1e-3)
    center.update(text_VE, np.zeros(0, np.int64))
    assert (center.center_E != before_E).any()
    np.testing.assert_allclose(
        center.centered(text_VE, np.arange(TITLES)), plain(text_VE, np.arange(TITLES) == 0), atol=1e-5
    )


def test_restored_center_continues_with_the_same_bits() -> None:
    center, text_VE = filled(np.arange(TITLES) % 2 == 0)
    restored = TextCenter(text_VE.shape[1], TITLES)
    restored.load_state_dict(center.state_dict(), text_VE)
    for one in (center, restored):
        one.settle(text_VE[1:2])
        one.update(text_VE, np.zeros(0, np.int64))
        one.grow(TITLES + 3)
    assert center.inverse_distance_V.tobytes() == restored.inverse_distance_V.tobytes()
    assert center.center_E.tobytes() == restored.center_E.tobytes()


def test_catalog_without_texts_has_no_centered_texts() -> None:
    center = TextCenter(4, 3)
    center.update(np.zeros((3, 4), np.float32), np.arange(3))
    assert not center.centered(np.zeros((3, 4), np.float32), np.arange(3)).any()
