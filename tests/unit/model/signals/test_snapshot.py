"""Snapshots of the catalog use the same buffers again while they fit."""

import numpy as np

from model.signals.snapshot import take_snapshot
from model.state.stream_state import StreamState
from tests.support.learner import LARGE_STATE, random_unit_vectors, title_metadata


def test_buffers_are_used_again_until_the_catalog_grows() -> None:
    state = StreamState(LARGE_STATE)
    state.launch(title_metadata(f"t{n}") for n in range(5))
    first = take_snapshot(state)
    state.launch([title_metadata("another"), title_metadata("t0", withdrawn=True)])
    second = take_snapshot(state, first)
    assert second.scratch is first.scratch
    assert (len(second.count_V), second.candidates) == (6, 5)
    state.launch(title_metadata(f"n{n}") for n in range(2_000))
    third = take_snapshot(state, second)
    assert third.scratch is not second.scratch
    assert len(third.scratch.pool.slot_V) == state.catalog.capacity


def test_centered_texts_are_unit_vectors_without_the_mean() -> None:
    state, text = StreamState(LARGE_STATE), random_unit_vectors(np.random.default_rng(1), 30)
    state.launch(title_metadata(f"t{n}", text[n]) for n in range(30))
    state.launch([title_metadata("no text", None)])
    centered_VE = take_snapshot(state).centered_text(np.arange(31))
    np.testing.assert_allclose(np.linalg.norm(centered_VE[:30], axis=1), 1, rtol=1e-5)
    assert not centered_VE[30].any()
    assert abs(centered_VE[:30].mean(axis=0)).max() < abs(text.mean(axis=0)).max()
